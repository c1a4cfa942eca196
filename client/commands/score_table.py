"""How a model did on this hospital's own held-out patients, as a table for a person."""

from rich.table import Table

from client.commands.structure_table import print_structures
from client.dicom.census import SMALL_CELL
from client.final_model.scoring import ClassScore, Interval, Score
from common.terminal import output


def print_score(found: Score) -> None:
    """Print a row for each class, and for each structure of a segmentation; small cells are suppressed."""
    if found.patients == 0:
        output.print("no held-out patient here has a label, so there is nothing to score the model on")
        return
    table = Table(title="The model on this hospital's own held-out patients", title_justify="left")
    for column in ("class", "patients", "AUC", "sensitivity", "specificity", "Dice", "mean label map, no scan"):
        table.add_column(column)
    for row in found.classes:
        figures = (row.auc, row.sensitivity, row.specificity, row.dice, row.dice_atlas_only)
        table.add_row(row.name, _counts(row), *(_shown(figure) for figure in figures))
    output.print(table)
    print_structures(found)
    if found.calibration_error is not None:
        output.print(f"calibration: stated confidence is off by {found.calibration_error:.3f} on average")
    output.print("95 % intervals. Computed and kept here: nothing left this hospital, and looking cost no privacy.")
    output.print("These figures are exact, so do not send them out.")


def _counts(row: ClassScore) -> str:
    if row.dice is not None or (row.without is None and row.auc is None):
        return _count(row.with_class)
    return f"{_count(row.with_class)} with, {_count(row.without)} without"


def _count(count: int | None) -> str:
    return f"<{SMALL_CELL}" if count is None else str(count)


def _shown(figure: Interval | None) -> str:
    return "-" if figure is None else f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
