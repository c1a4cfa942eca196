"""The lights of a plan as a table for a person: the same for who signs it and for who is asked to approve it."""

from typing import Any, Final

from rich.table import Table

from common.plan.lights import Colour
from common.terminal import printable

STYLES: Final = {Colour.GREEN: "green", Colour.YELLOW: "yellow", Colour.RED: "bold red"}


def lights_table(found: list[dict[str, Any]]) -> Table:
    """Return the table; colours are words too, for a file and for who does not see them."""
    table = Table(title="Can it work?", title_justify="left", title_style="bold", show_header=False, box=None)
    for light in found:
        colour = Colour(light["colour"])
        words = (light["what"], light["figure"], light["meaning"])
        table.add_row(f"[{STYLES[colour]}]{colour.value}[/]", *map(printable, words))
    return table
