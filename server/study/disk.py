"""How much disk a study takes at the coordinator: every opened sum is kept, and the newest states of the model."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.plan.plan import StudyPlan
from common.plan.shape import phase_layouts

SUM_WORD_BYTES: Final = 4
STATE_BYTES: Final = 4 * 4  # of a parameter: weights, average, two moments
STATES: Final = 3  # checkpoints that lie beside one another
FILE_BYTES: Final = 8192  # header, journal rows


@dataclass(frozen=True)
class Disk:
    """``study_bytes``: what a study takes at most, all attempts used; ``free_bytes``: there is now."""

    study_bytes: int
    free_bytes: int

    @property
    def sentence(self) -> str:
        """Say both, for a person."""
        enough = "" if self.study_bytes < self.free_bytes else "; NOT ENOUGH: make room, or keep it on another disk"
        return f"on disk it takes {_shown(self.study_bytes)} at most; {_shown(self.free_bytes)} are free{enough}"


def disk_for(plan: StudyPlan, place: Path) -> Disk:
    """Return what a study of ``plan`` takes where ``place`` lies, and what is free there. Raises: OSError."""
    shapes = phase_layouts(plan)
    sums = sum(
        phase.maximum_attempts * (SUM_WORD_BYTES * shape.sum_length + FILE_BYTES)
        for phase, shape in zip(plan.phases, shapes, strict=True)
    )
    largest = max(shape.travelling_parameters for shape in shapes)
    return Disk(sums + STATES * (STATE_BYTES * largest + FILE_BYTES), shutil.disk_usage(place).free)


def _shown(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{max(1, round(count / 1000))} kB"
