"""How an encoder travels from the coordinator's gateway to a hospital: its card, then its file in numbered blocks.

    POST /v1/encoders/card    the card's digest            -> the card's canonical bytes
    POST /v1/encoders/block   the file's digest, a number  -> BLOCK_BYTES of the file from number * BLOCK_BYTES on

The card says how long the file is, so a hospital knows what comes before it asks, and goes on after a break with the
first block that it lacks. Nobody need be believed: the digests come from a plan, and both are compared.
"""

import re
from typing import Final

CARD_PATH: Final = "/v1/encoders/card"
BLOCK_PATH: Final = "/v1/encoders/block"
PATHS: Final = frozenset({CARD_PATH, BLOCK_PATH})
BLOCK_BYTES: Final = 4 << 20
MAX_QUESTION_BYTES: Final = 128

_CARD: Final = re.compile(rb"[0-9a-f]{64}")
_BLOCK: Final = re.compile(rb"([0-9a-f]{64}) (0|[1-9][0-9]{0,5})")


def card_question(card: str) -> bytes:
    """Return the body that asks for a card by its digest."""
    return card.encode()


def block_question(file: str, number: int) -> bytes:
    """Return the body that asks for one block of a file."""
    return f"{file} {number}".encode()


def read_card_question(body: bytes) -> str | None:
    """Return the digest that is asked for; None for a body of another form."""
    return body.decode() if _CARD.fullmatch(body) else None


def read_block_question(body: bytes) -> tuple[str, int] | None:
    """Return the file's digest and the number of the block; None for a body of another form."""
    found = _BLOCK.fullmatch(body)
    return (found[1].decode(), int(found[2])) if found else None


def block_length(file_bytes: int, number: int) -> int:
    """Return how many bytes block ``number`` of a file has; 0 for one beyond its end."""
    return max(0, min(BLOCK_BYTES, file_bytes - number * BLOCK_BYTES))
