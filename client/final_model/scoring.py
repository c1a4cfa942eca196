"""How the final model does on this hospital's own held-out patients: exact figures, computed and kept here.

The patients were never trained on; a patient's scans are averaged, as in the study's noised evaluation. Intervals are
for other patients of this hospital, at 95 %: AUC after Hanley and McNeil 1982 (on the logit, so within (0, 1)), shares
after Wilson 1927, mean Dice by its standard error.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.dicom.census import SMALL_CELL
from client.final_model.structure_measures import StructureFigures
from client.final_model.structure_tally import StructureTally
from client.learning.logits import logits_of
from client.learning.patient_answers import answered_scans, mean_answers
from client.learning.patients import UNKNOWN, Scans
from client.learning.whole_scan import Place
from common.plan.task import Task, TaskKind
from common.privacy.intervals import NORMAL_95, wilson_bounds
from common.privacy.metrics import auc_standard_error, calibration_error

CONFIDENCE_BINS: Final = 10
SCANS_AT_ONCE: Final = 16

Floats = NDArray[np.float64]
Draw = Callable[[Tensor, Tensor, Tensor, float], None]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassScore:
    """One class against all others. None where there are too few patients for a figure.

    ``with_class``, ``without``: patients, None below ten (a small cell can name a person). ``sensitivity``,
    ``specificity``: of the network's answer (the likeliest class; several labels at once: above one half).
    ``dice_atlas_only``: of the
    mean label map, which looks at no scan. ``structure``: of a segmentation, in the measures of
    ``structure_measures``, over all labelled scans.
    """

    name: str
    with_class: int | None
    without: int | None
    auc: Interval | None = None
    sensitivity: Interval | None = None
    specificity: Interval | None = None
    dice: Interval | None = None
    dice_atlas_only: Interval | None = None
    structure: StructureFigures | None = None


@dataclass(frozen=True)
class Score:
    """All classes, and how far stated confidence is from what comes true (None where it has no meaning)."""

    patients: int | None
    classes: tuple[ClassScore, ...]
    calibration_error: float | None


def predicted(network: nn.Module, images: Tensor, kind: TaskKind, device: torch.device) -> Tensor:
    """Return probabilities of each scan, a few scans at a time: (scans, classes) or (scans, classes, *size).

    Shapes: images (scans, channels, *size) float32 in [0, 1].
    """
    activate: Callable[[Tensor], Tensor] = torch.sigmoid if kind is TaskKind.MULTI_LABEL else _softmax
    parts = torch.split(images, SCANS_AT_ONCE)
    return torch.cat([activate(logits_of(network, part.to(device))).cpu() for part in parts])


def score(
    network: nn.Module,
    task: Task,
    patients: Iterable[Scans],
    *,
    window: Place = (),
    spacing_mm: Sequence[float] = (),
    atlas: Tensor | None = None,
    draw: Draw | None = None,
) -> Score:
    """Score a network, where it lives, on patients, a few scans at a time; who has no labelled scan is left out.

    Of a segmentation: ``window``: of one by patches, their size; ``spacing_mm``: of the study's grid, in which
    distances and volumes are told; ``atlas``: the mean label map (*size), scored as if it were the answer; ``draw``:
    called with each scan's image, expert's label map, answer, and mean Dice.
    """
    if task.kind is TaskKind.SEGMENTATION:
        return _score_segmentation(network, task, patients, window, spacing_mm=spacing_mm, atlas=atlas, draw=draw)
    rows = [row for row in (_row(network, task, patient) for patient in patients) if row is not None]
    if not rows:
        return Score(0, (), None)
    scores, truth = (np.stack(column) for column in zip(*rows, strict=True))
    if task.kind is TaskKind.MULTI_LABEL:
        answered = scores > 0.5
        return Score(_shown(len(rows)), _class_scores(task.classes, scores, truth, answered), None)
    answered = np.arange(len(task.classes)) == scores.argmax(1)[:, None]
    classes = _class_scores(task.classes, scores, truth, answered)
    shown = classes
    if len(classes) == 2:  # each is the mirror of the other
        shown = (classes[1 - task.normal_index],)
    return Score(_shown(len(rows)), shown, _calibration(scores, truth))


def _row(network: nn.Module, task: Task, patient: Scans) -> tuple[Floats, Floats] | None:
    """Return a patient's mean probabilities and labels (1, 0, or NaN where nobody knows), each (classes,)."""
    several = task.kind is TaskKind.MULTI_LABEL
    found = mean_answers(network, patient, several_labels=several, most=SCANS_AT_ONCE)
    if found is None:
        return None
    scores: Floats = found.scores.numpy()
    if several:
        present = found.labels.double().numpy()
        return scores, np.where(present == UNKNOWN, np.nan, present)
    return scores, (np.arange(len(task.classes)) == int(found.labels)).astype(np.float64)


def _class_scores(
    names: Sequence[str], scores: Floats, truth: Floats, answered: NDArray[np.bool_]
) -> tuple[ClassScore, ...]:
    found = []
    for index, name in enumerate(names):
        known = ~np.isnan(truth[:, index])
        has, said = truth[known, index] == 1, answered[known, index]
        found.append(
            ClassScore(
                name,
                _shown(int(has.sum())),
                _shown(int((~has).sum())),
                auc=auc_interval(scores[known, index], has),
                sensitivity=_share(said[has]),
                specificity=_share(~said[~has]),
            )
        )
    return tuple(found)


def auc_interval(scores: Floats, has: NDArray[np.bool_]) -> Interval | None:
    """Return AUC = P(a patient with the class scores above one without), ties half (Mann and Whitney).

    Shapes: scores, has (patients,). None with fewer than two patients on a side.
    """
    positives, negatives = scores[has], np.sort(scores[~has])
    if min(len(positives), len(negatives)) < 2:
        return None
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    area = float(below.mean()) / (2 * len(negatives))
    error = auc_standard_error(area, positives=len(positives), negatives=len(negatives), bins=1)
    if not 0 < area < 1 or error == 0:
        return Interval(area, 0.0 if area < 1 else _least(len(positives), len(negatives)), 1.0)
    centre, reach = math.log(area / (1 - area)), NORMAL_95 * error / (area * (1 - area))
    return Interval(area, _expit(centre - reach), _expit(centre + reach))


def _least(positives: int, negatives: int) -> float:
    """Return a lower bound for a perfect AUC: Wilson's for as many right answers as the smaller class has patients."""
    return _wilson(min(positives, negatives), min(positives, negatives)).low


def _share(right: NDArray[np.bool_]) -> Interval | None:
    return _wilson(int(right.sum()), len(right)) if len(right) else None


def _wilson(right: int, total: int) -> Interval:
    """Return the share ``right / total`` with Wilson's interval."""
    share = right / total
    return Interval(share, *wilson_bounds(share, total))


def _calibration(scores: Floats, truth: Floats) -> float:
    answers = scores.argmax(1)
    counts = np.zeros((2, CONFIDENCE_BINS))
    places = np.minimum((scores.max(1) * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    np.add.at(counts, (truth[np.arange(len(answers)), answers].astype(np.int64), places), 1)
    return calibration_error(counts)


def _score_segmentation(
    network: nn.Module,
    task: Task,
    patients: Iterable[Scans],
    window: Place,
    *,
    spacing_mm: Sequence[float],
    atlas: Tensor | None,
    draw: Draw | None,
) -> Score:
    """Mean over patients of 2 |A and B| / (|A| + |B|), for each foreground class that expert or network found."""
    found = StructureTally(task, spacing_mm)
    by_atlas = StructureTally(task, spacing_mm)
    for patient in patients:
        for image, answered, expert in answered_scans(network, patient, most=SCANS_AT_ONCE, window=window):
            dice = found.add(answered, expert)
            if atlas is not None:
                by_atlas.add(atlas, expert, boundaries=False)
            if draw is not None and dice is not None:
                draw(image(), expert, answered, dice)
        found.end_patient()
        by_atlas.end_patient()
    rows = tuple(
        ClassScore(
            name,
            _shown(len(found.dice[row])),
            None,
            dice=_mean(found.dice[row]),
            dice_atlas_only=_mean(by_atlas.dice[row]) if atlas is not None else None,
            structure=found.figures(row),
        )
        for row, name in enumerate(task.classes[1:])
    )
    return Score(_shown(found.patients), rows, None)


def _mean(values: Sequence[float]) -> Interval | None:
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    reach = NORMAL_95 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean, max(0.0, mean - reach), min(1.0, mean + reach))


def _softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits, 1)


def _shown(count: int) -> int | None:
    return None if 0 < count < SMALL_CELL else count


def _expit(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
