"""Encoders over the gateway: what one request for a card or a block is answered with (``common.encoders.travel``).

Only what the coordinator offered, to sites that the door has let in. A block is read beside the event loop, and one
site has one of them in memory at a time.
"""

import asyncio
import os
from typing import Final

from starlette.responses import Response

from common.encoders.card import read_card
from common.encoders.travel import (
    BLOCK_BYTES,
    CARD_PATH,
    block_length,
    read_block_question,
    read_card_question,
)
from common.errors import FedwardError
from common.files import open_bounded
from server.encoders.offers import OfferedEncoders

NOT_FOUND: Final = 404
MALFORMED: Final = 400


async def answered(encoders: OfferedEncoders | None, path: str, body: bytes) -> Response:
    """Return the answer to a request: a card, a block, 404 for what is not offered, 400 for a malformed question."""
    if encoders is None:
        return Response(status_code=NOT_FOUND)
    read = _card if path == CARD_PATH else _block
    status, content = await asyncio.to_thread(read, encoders, body)
    return Response(content, status, media_type="application/octet-stream")


def _card(encoders: OfferedEncoders, body: bytes) -> tuple[int, bytes]:
    digest = read_card_question(body)
    if digest is None:
        return MALFORMED, b""
    card = encoders.card_of(digest)
    return (NOT_FOUND, b"") if card is None else (200, card.canonical())


def _block(encoders: OfferedEncoders, body: bytes) -> tuple[int, bytes]:
    question = read_block_question(body)
    if question is None:
        return MALFORMED, b""
    digest, number = question
    try:
        card = read_card(encoders.shelf.card_file(digest))
        length = block_length(card.bytes, number) if encoders.is_offered(card) and card.file == digest else 0
        if not length:
            return NOT_FOUND, b""
        with open_bounded(encoders.shelf.file(digest), card.bytes) as file:
            content = os.pread(file.fileno(), length, number * BLOCK_BYTES)
    except (FedwardError, OSError):
        return NOT_FOUND, b""
    return (200, content) if len(content) == length else (NOT_FOUND, b"")
