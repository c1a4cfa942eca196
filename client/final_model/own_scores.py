"""How each released model does on this hospital's own held-out patients: for its staff, never for the coordinator.

The counts that ride along are made from these patients anyway, and leave with noise (``client.learning.evaluation``);
here the exact figure stays in a file of the site (mode 0600, one JSON line a score). When a model does clearly worse
than an earlier one, staff are told: somebody may have poisoned it, or this hospital's patients are unlike the others'.
Nothing of it changes what leaves, nor when: answers to an order leave at the plan's slots.
"""

import json
import logging
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.files import parsed_json
from common.plan.selection import DICE_SPREAD
from common.privacy.metrics import UNITS_PER_PATIENT, CountKind, CountLayout, area_under_curve

LEAST_PATIENTS: Final = 10  # of a class: with fewer a figure says nothing, and could name a person
DEVIATIONS: Final = 2.0
_MAX_BYTES: Final = 1 << 20

_log = logging.getLogger("fedward.site")


@dataclass(frozen=True)
class OwnScore:
    """Mean AUC (or Dice) of a released model on this hospital's own held-out patients, and its standard error.

    ``phase`` (from 0), ``round_number`` (from 1): of the order that brought the model.
    """

    phase: int
    round_number: int
    score: float
    standard_error: float
    unix_s: float = 0.0


def own_score(layout: CountLayout, counts: NDArray[np.int64]) -> tuple[float, float] | None:
    """Return score and standard error from exact counts in 1 / 1024 patient; None with too few patients."""
    tables = layout.tables(counts / UNITS_PER_PATIENT)
    if layout.kind is CountKind.SEGMENTATION:
        known = tables["present"] >= LEAST_PATIENTS
        found = [
            (float(dice / present), DICE_SPREAD / math.sqrt(present))
            for dice, present in zip(tables["dice"][known], tables["present"][known], strict=True)
        ]
    else:
        enough = [table for table in tables["histograms"] if table.sum(1).min() >= LEAST_PATIENTS]
        areas = [area_under_curve(table) for table in enough]
        found = [(area.value, area.standard_error) for area in areas if area]
    if not found:
        return None
    values, errors = zip(*found, strict=True)
    return float(np.mean(values)), float(np.mean(errors))


def note_own_score(
    path: Path, layout: CountLayout, counts: NDArray[np.int64], *, phase: int, round_number: int
) -> None:
    """Add the score of a model to the site's file; a disk that refuses it costs the line, never the round."""
    found = own_score(layout, counts)
    if found is None:
        return
    line = json.dumps(asdict(OwnScore(phase, round_number, *found, unix_s=time.time()))) + "\n"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(line.encode())
    except OSError as error:
        _log.warning("the own score could not be kept (%s)", type(error).__name__)


def read_own_scores(path: Path) -> list[OwnScore]:
    """Return the scores in order, the newest last; what cannot be read is left out."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _MAX_BYTES))
            lines = file.read(_MAX_BYTES).splitlines()
    except OSError:
        return []
    scores = []
    for line in lines:
        try:
            found = OwnScore(**parsed_json(line))
            if all(math.isfinite(value) for value in asdict(found).values()):
                scores.append(found)
        except (ValueError, TypeError, OverflowError):
            continue
    return scores


def why_worse(scores: list[OwnScore]) -> str:
    """Return a sentence where the newest model does clearly worse than the best before it; empty otherwise.

    Clearly: by more than two standard errors of both figures together. The first score is compared with nothing.
    """
    if len(scores) < 2:
        return ""
    last, best = scores[-1], max(scores[:-1], key=lambda each: each.score)
    if best.score - last.score <= DEVIATIONS * math.hypot(best.standard_error, last.standard_error):
        return ""
    return (
        "on this hospital's own held-out patients the newest model "
        f"(phase {last.phase + 1}, round {last.round_number}) scores {last.score:.3f}, an earlier one "
        f"(phase {best.phase + 1}, round {best.round_number}) {best.score:.3f}: ask the coordinator what happened, or "
        "pause (`fedward-site pause`); the coordinator is not told of this"
    )
