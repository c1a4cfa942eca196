"""Predictions as a table: what a model said of new scans, and why files were not used."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from client.dicom.reject import RejectCode
from common.plan.plan import StudyPlan
from common.plan.task import TaskKind

RESEARCH_ONLY: Final = "Research use only, not a medical device: do not base a diagnosis or treatment on these figures."


@dataclass(frozen=True)
class Row:
    """A study: its files by number, how many images they gave, the answer, and a figure for each class.

    Of a segmentation a series (2-D: a picture) instead. ``figures``: probability of each class; segmentation: volume in
    ml of each class but the background, in 2-D its pixels. ``study``: number of the study, from 1; ``mask``: name of
    the file written of a series; ``mask_code``: why none could be.
    """

    files: tuple[int, ...]
    images: int
    answer: str
    figures: tuple[float, ...]
    study: int = 0
    mask: str = ""
    mask_code: str = ""


@dataclass
class Predictions:
    """``rows``: studies (series) by their first file. ``refused``: number of a file -> why it was not used.

    ``studies``: how many studies the rows are of.
    """

    plan: StudyPlan
    rows: list[Row] = field(default_factory=list)
    refused: dict[int, RejectCode] = field(default_factory=dict)
    studies: int = 0

    def to_csv(self) -> str:
        """Return a table; its first line is a comment that says what it must not be used for."""
        out = io.StringIO()
        out.write(f"# {RESEARCH_ONLY}\n")
        names = figure_names(self.plan)
        columns = ["study", "first_file", "files", "images", "answer", *names, "refused"]
        if self.plan.task.kind is TaskKind.SEGMENTATION:
            columns = ["study", "series", *columns[1:-1], "mask", "refused"]
        writer = csv.DictWriter(out, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for number, row in enumerate(self.rows, start=1):
            figures = dict(zip(names, (f"{figure:.6g}" for figure in row.figures), strict=True))
            place = {"study": row.study, "series": number, "first_file": min(row.files), "files": len(row.files)}
            facts = {"images": row.images, "answer": row.answer, "mask": row.mask, "refused": row.mask_code}
            writer.writerow(place | facts | figures)
        for file, code in self.refused.items():
            writer.writerow({"first_file": file, "files": 1, "images": 0, "refused": code.value})
        return out.getvalue()


def answer_of(figures: Sequence[float], plan: StudyPlan) -> str:
    """Return the classes that a row's figures name; "" where they are no numbers."""
    classes, kind = plan.task.classes, plan.task.kind
    if not all(map(math.isfinite, figures)):
        return ""
    if kind is TaskKind.CLASSIFICATION:
        return classes[max(range(len(figures)), key=figures.__getitem__)]
    least = 0.5 if kind is TaskKind.MULTI_LABEL else 0.0
    named = classes if kind is TaskKind.MULTI_LABEL else classes[1:]
    return "|".join(name for name, figure in zip(named, figures, strict=True) if figure > least) or "none"


def figure_names(plan: StudyPlan) -> list[str]:
    """Return the names of a row's figures."""
    if plan.task.kind is not TaskKind.SEGMENTATION:
        return [f"p_{name}" for name in plan.task.classes]
    unit = "ml" if plan.task.dimensions == 3 else "pixels"
    return [f"{unit}_{name}" for name in plan.task.classes[1:]]
