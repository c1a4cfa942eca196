"""Dice and measures of a segmentation, added up scan by scan and averaged for each patient."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from client.final_model.structure_measures import Measures, StructureFigures, figures_of, measured
from client.learning.patients import UNKNOWN
from common.plan.task import Task


class StructureTally:
    """``dice``: for each structure, the mean of each patient that has it by expert or answer; ``patients``: seen."""

    def __init__(self, task: Task, spacing_mm: Sequence[float]) -> None:
        self._task, self._spacing_mm = task, spacing_mm
        self.dice: list[list[float]] = [[] for _ in task.classes[1:]]
        self.patients = 0
        self._measures: list[list[Measures]] = [[] for _ in task.classes[1:]]
        self._own: list[list[float]] = [[] for _ in task.classes[1:]]
        self._scans = 0

    def add(self, answer: Tensor, expert: Tensor, *, boundaries: bool = True) -> float | None:
        """Add a scan of the patient under way; return its mean Dice, None where neither has any structure.

        Shapes: answer, expert (*size) class numbers; what nobody knows (``UNKNOWN``) does not count.
        ``boundaries``: also its distances, volumes and lesions.
        """
        self._scans += 1
        of_scan = []
        for row, name in enumerate(self._task.classes[1:]):
            ours, theirs = (answer == row + 1) & (expert != UNKNOWN), expert == row + 1
            size = int(ours.sum() + theirs.sum())
            if size == 0:
                continue
            of_scan.append(2 * int((ours & theirs).sum()) / size)
            self._own[row].append(of_scan[-1])
            if boundaries:
                is_lesion = name in self._task.lesions
                found = measured(ours.numpy(), theirs.numpy(), self._spacing_mm, is_lesion=is_lesion)
                self._measures[row] += [found] if found else []
        return float(np.mean(of_scan)) if of_scan else None

    def end_patient(self) -> None:
        """Average the patient's scans; one without a labelled scan does not count."""
        self.patients += self._scans > 0
        for values, own in zip(self.dice, self._own, strict=True):
            values.extend([float(np.mean(own))] if own else [])
            own.clear()
        self._scans = 0

    def figures(self, row: int) -> StructureFigures | None:
        """Return the measures of a structure; None where no scan has it."""
        found, name = self._measures[row], self._task.classes[row + 1]
        return figures_of(found, self._spacing_mm, is_lesion=name in self._task.lesions) if found else None
