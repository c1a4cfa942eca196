"""What visitors of a page type or send: numbers in addresses and the fields of forms, of whatever size."""

from typing import Final
from urllib.parse import parse_qs

MOST_FIELDS: Final = 4
MOST_DIGITS: Final = 9


def number_in(text: str) -> int | None:
    """Return the number that a part of an address is; None where it is none, or longer than any that a page has."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else None


def read_form(body: bytes) -> dict[str, str] | None:
    """Return the first value of each field of a form; None for one with more fields than any of ours has."""
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=MOST_FIELDS)
    except ValueError:
        return None
    return {name: values[0] for name, values in fields.items()}
