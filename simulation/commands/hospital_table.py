"""What the commands that write hospitals have in common: options, progress, and the table at the end."""

from dataclasses import asdict
from typing import Annotated, Self

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from common.terminal import errors, output, print_json
from simulation.hospitals.hospital import Hospital

Share = Annotated[float, typer.Option(help="Share of each hospital's patients that is labelled.", min=0, max=1)]
Count = Annotated[int, typer.Option(help="Images (or volumes) of each patient.", min=1, max=64)]


class Watch:
    """A progress bar on standard error, shown only to a person."""

    def __init__(self, title: str, total: int, *, quiet: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=errors, transient=True, disable=quiet or not errors.is_terminal)
        self._task = self._bar.add_task(title, total=total)

    def reached(self, files: int) -> None:
        """Say how many files are written by now."""
        self._bar.update(self._task, completed=files)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def show(hospitals: list[Hospital], *, as_json: bool, content: dict[str, object]) -> None:
    """Print the hospitals as a table, or as one JSON object together with how they were made."""
    if as_json:
        print_json(content | {"hospitals": [asdict(hospital) for hospital in hospitals]})
        return
    table = Table("hospital", "patients", "labelled", "images", "files", "scanner", "format", box=None)
    for row in hospitals:
        form = row.syntax + (" MONOCHROME1" if row.monochrome1 else "")
        numbers = (row.patients, row.labelled_patients, row.images, row.files)
        table.add_row(row.name, *map(str, numbers), row.maker, form)
    output.print(table)
    for row in hospitals:
        mix = ", ".join(f"{count} {name}" for name, count in row.classes.items())
        output.print(f"{row.name}: {mix}")
