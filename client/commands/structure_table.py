"""The structures of a segmentation in a table: boundaries, volumes, lesions."""

from rich.table import Table

from client.final_model.scoring import Score
from common.terminal import output


def print_structures(found: Score) -> None:
    """Print a row for each structure that was measured; nothing for other tasks."""
    rows = [(row.name, row.structure) for row in found.classes if row.structure is not None]
    if not rows:
        return
    table = Table(title="Structures, over all scans with a mask", title_justify="left")
    tolerance = rows[0][1].tolerance_mm
    lesions = any(figures.lesions or figures.false_lesions_per_scan is not None for _, figures in rows)
    columns = ["structure", "HD95", f"surface Dice at {tolerance:g}", "volume off", "on average", "share"]
    for column in columns + ["lesions found", "false a scan"] * lesions:
        table.add_column(column)
    for name, figures in rows:
        cells = [figures.hd95_mm, figures.surface_dice, figures.volume_error_ml, figures.volume_bias_ml]
        cells += [figures.volume_error_share]
        cells += [figures.lesion_sensitivity, figures.false_lesions_per_scan] if lesions else []
        table.add_row(name, *("-" if cell is None else f"{cell:.3f}" for cell in cells))
    output.print(table)
    output.print("HD95 and tolerance in mm, volumes in ml (2-D: pixels); HD95 only of scans where both found it.")
