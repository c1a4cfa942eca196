"""A card and what was found out about its file, as a person and a script read them."""

from typing import Any

from rich.table import Table

from common.encoders.card import EncoderCard
from common.encoders.checking import EncoderFacts
from common.terminal import output, printable

SHORT_DIGEST = 12


def encoder_facts(card: EncoderCard, checked: EncoderFacts | None = None) -> dict[str, Any]:
    """Return everything a card says, its digest, and what one image takes where the file was just checked."""
    facts: dict[str, Any] = {"digest": card.digest(), **card.model_dump(mode="json")}
    if checked is not None:
        facts |= {"image_mb": round(checked.bytes_at_once / 1e6, 1), "multiply_adds": checked.multiply_adds}
    return facts


def card_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what staff should read of an encoder before they use it, in words, from ``encoder_facts``."""
    scale, offset = (", ".join(f"{value:g}" for value in facts["mapping"][part]) for part in ("scale", "offset"))
    gives = (f"{each['name']}: {each['kind']} of {_sides(each['shape'])}" for each in facts["outputs"])
    return [
        ("name", f"{facts['name']}, {facts['version']}"),
        ("source", facts["source"]),
        ("licence", facts["licence"]),
        ("trained on", facts["training_data"]),
        ("intended use", facts["intended_use"]),
        ("takes", f"{_sides(facts['size_px'])} pixels, {facts['channels']} channels"),
        ("values", f"prepared value times {scale} plus {offset}"),
        ("gives", "; ".join(gives)),
        ("file", f"{facts['file']}, {facts['bytes'] / 1e6:.1f} MB"),
        ("card", facts["digest"]),
    ]


def _sides(sizes: list[int]) -> str:
    return " x ".join(map(str, sizes))


def print_encoder(card: EncoderCard, checked: EncoderFacts | None = None) -> None:
    """Print a card for a person, and the section of a plan that names it."""
    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = card_rows(encoder_facts(card))
    if checked is not None:
        work = f"{checked.multiply_adds / 1e9:.2f} thousand million multiplications"
        rows.append(("one image", f"{checked.bytes_at_once / 1e6:.1f} MB beside the weights, {work}"))
    for name, text in rows:
        table.add_row(name, printable(text))
    output.print(table)


def plan_section(card: EncoderCard) -> str:
    """Return the part of a plan that names this encoder with all its vectors."""
    vectors = [each for each in card.outputs if each.kind == "vector"]
    names = ", ".join(f'"{each.name}"' for each in vectors)
    return (
        f'[network]\nname = "encoder"\n\n[network.encoder]\ncard = "{card.digest()}"\nfile = "{card.file}"\n'
        f"outputs = [{names}]\nfeatures = {sum(each.length for each in vectors)}\n"
    )


def print_list(cards: list[EncoderCard]) -> None:
    """Print one line for each encoder."""
    table = Table("card", "name", "licence", "input", "MB", title="encoders", title_justify="left")
    for card in cards:
        size = _sides(list(card.size_px))
        cells = (
            card.digest()[:SHORT_DIGEST],
            f"{card.name}, {card.version}",
            card.licence,
            size,
            f"{card.bytes / 1e6:.1f}",
        )
        table.add_row(*(printable(cell) for cell in cells))
    output.print(table)
