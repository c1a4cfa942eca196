"""One rehearsal from the first step to the last, with what each step took."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

from common.errors import OutputExistsError
from simulation.errors import RehearsalError
from simulation.rehearsal.background import Background
from simulation.rehearsal.cast import cast_of
from simulation.rehearsal.round_times import seconds_per_round
from simulation.rehearsal.story import Story

# A Unix socket's path has at most 107 bytes, and every agent listens on one inside its site folder.
LONGEST_PLACE: Final = 70

Told = Callable[[int, int, str], None]


def perform(
    place: Path | None,
    *,
    sites: int,
    rounds: int,
    kills: bool = False,
    width: int = 0,
    told: Told = lambda _n, _of, _words: None,
) -> dict[str, Any]:
    """Rehearse a whole deployment in ``place`` (new; a folder under /tmp when None, gone afterwards).

    ``kills``: kill each process once while rounds run. ``width``: of a residual network instead of the small one (292:
    25 million parameters). ``told`` gets number, total and words of each step.
    Returns plain values, as ``--json`` prints. ``overhead_s_per_round``: median of ``seconds_by_round``, as the first
    round also loads models and opens ledgers.
    Raises: RehearsalError with the command that failed; OutputExistsError.
    """
    with _stage(place) as folder, Background(folder / "logs") as background:
        story = Story(cast_of(folder, sites), rounds, background, kills=kills, width=width)
        steps, took = story.steps(), []
        for number, (words, step) in enumerate(steps, start=1):
            told(number, len(steps), words)
            began_s = time.monotonic()
            step()
            took.append({"step": words, "seconds": round(time.monotonic() - began_s, 3)})
        periods_s = seconds_per_round(story.cast.study)
    return {
        "ok": True,
        "sites": sites,
        "rounds": len(periods_s),
        "overhead_s_per_round": round(median(periods_s), 3),
        "seconds_by_round": [round(period_s, 3) for period_s in periods_s],
        "model_sha256": story.facts["model"]["weights"]["sha256"],
        "books": story.facts["books"],
        "peak_mb": dict(sorted(story.facts["peak_mb"].items())),
        "own_mb": dict(sorted(story.facts["own_mb"].items())),
        "killed": [asdict(kill) for kill in story.killed],
        "folder": str(folder) if place else None,
        "steps": took,
    }


@contextmanager
def _stage(place: Path | None) -> Iterator[Path]:
    """Give the folder of a rehearsal: the one asked for, or one that goes away, unless something failed in it."""
    if place is not None:
        if len(str(place.resolve())) > LONGEST_PLACE:
            raise RehearsalError(
                f"{place}: {len(str(place.resolve()))} characters; sockets in it allow {LONGEST_PLACE}"
            )
        if place.exists() and any(place.iterdir()):
            raise OutputExistsError(f"{place}: not empty; give a new folder")
        place.mkdir(parents=True, exist_ok=True)
        yield place.resolve()
        return
    made = Path(tempfile.mkdtemp(prefix="fedward-"))
    yield made
    shutil.rmtree(made)
