"""Fetching a public encoder from the coordinator's gateway: resumable, of known length, believed by digest only.

The card comes first; its digest is the one that was asked for, so what it says is what the plan's author meant: file,
length, digest. Then the file, in blocks (``common.encoders.travel``), into ``FILE.part``; a break is gone on with at
the block that lacks. At the end it is checked like a file that was carried here (``common.encoders.checking``).
"""

import base64
import datetime as dt
import os
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from client.installation.setup import read_node_key
from common.encoders.card import MAX_CARD_BYTES, EncoderCard, parse_card
from common.encoders.checking import EncoderFacts
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.encoders.shelf import EncoderShelf
from common.encoders.travel import (
    BLOCK_BYTES,
    BLOCK_PATH,
    CARD_PATH,
    block_length,
    block_question,
    card_question,
)
from common.errors import DiskFullError
from common.processes.folder_lock import hold
from common.trust.kit import Kit

TIMEOUT_S: Final = 60.0
PAUSES_S: Final = (1.0, 3.0, 10.0, 30.0)  # before each new try of one request
SPARE_BYTES: Final = 64 << 20  # of the disk, left free

Ask = Callable[[str, bytes, int], bytes | None]


class Gateway:
    """The way to the coordinator, as this site's SuperNode shows itself there; to be closed after use.

    ``proxy``: address of the hospital's proxy; None: straight. Raises: KeyExposedError, KeyInvalidError.
    """

    def __init__(self, kit: Kit, node_key: Path, *, proxy: str | None) -> None:
        self._key = read_node_key(node_key)
        trusted = ssl.create_default_context(cadata=kit.ca_certificate)
        self._client = httpx.Client(
            base_url=f"https://{kit.address}", verify=trusted, proxy=proxy, trust_env=False, timeout=TIMEOUT_S
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def ask(self, path: str, question: bytes, most_bytes: int) -> bytes | None:
        """Return the answer to one question, of ``most_bytes`` at most; None when the coordinator has none.

        A way that breaks off, and a gateway that is busy, are tried again. Raises: EncoderInvalidError (not_fetched).
        """
        for pause_s in (*PAUSES_S, None):
            try:
                return self._asked(path, question, most_bytes)
            except httpx.HTTPError as error:
                if pause_s is None:
                    raise EncoderInvalidError(
                        f"the coordinator's gateway cannot be reached ({type(error).__name__}); `fedward-site check` "
                        "looks why. What has come is kept: the same command goes on there",
                        EncoderFault.NOT_FETCHED,
                    ) from None
                time.sleep(pause_s)
        raise AssertionError("unreachable")

    def _asked(self, path: str, question: bytes, most_bytes: int) -> bytes | None:
        content = bytearray()
        with self._client.stream("POST", path, content=question, headers=self._shown()) as answer:
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            if answer.is_client_error:
                raise EncoderInvalidError(
                    f"the coordinator's gateway refused with status {answer.status_code} (401: this site is not in the "
                    "current roster, or its clock is wrong); `fedward-site check` looks why",
                    EncoderFault.NOT_FETCHED,
                )
            answer.raise_for_status()
            for piece in answer.iter_raw():
                content += piece
                if len(content) > most_bytes:
                    raise EncoderInvalidError(
                        "the coordinator's gateway sent more than was asked for", EncoderFault.NOT_FETCHED
                    )
        return bytes(content)

    def _shown(self) -> dict[str, str]:
        """Return the headers of a SuperNode (``server.gateway.visitors``)."""
        moment = dt.datetime.now(dt.UTC).isoformat()
        public = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return {
            "flwr-public-key": base64.b64encode(public).decode(),
            "flwr-timestamp": moment,
            "flwr-signature": base64.b64encode(self._key.sign(moment.encode(), ECDSA(hashes.SHA256()))).decode(),
        }


def fetch_card(digest: str, ask: Ask) -> EncoderCard:
    """Return the card of that digest. Raises: EncoderInvalidError."""
    content = ask(CARD_PATH, card_question(digest), MAX_CARD_BYTES)
    if content is None:
        raise EncoderInvalidError(
            f"the coordinator offers no encoder with the card {digest}; is it carried by hand?",
            EncoderFault.NOT_FETCHED,
        )
    card = parse_card(content)
    if card.digest() != digest:
        raise EncoderInvalidError("what came is another card than the one asked for", EncoderFault.CARD)
    return card


def fetch_file(
    shelf: EncoderShelf, card: EncoderCard, ask: Ask, *, limit_bytes: int, progress: Callable[[int], None]
) -> EncoderFacts:
    """Fetch a card's file, check it, and keep both; what came before a break is not fetched again.

    ``progress`` is told the bytes that are here.
    Raises: EncoderInvalidError, DiskFullError, AlreadyRunningError when another process fetches, FileUnreadableError.
    """
    if card.bytes > limit_bytes:
        raise EncoderInvalidError(
            f"{card.name} has {card.bytes} bytes, the limit in policy.toml is {limit_bytes}", EncoderFault.TOO_LARGE
        )
    shelf.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = shelf.folder / f"{card.file}.part"
    lock = hold(shelf.folder / "fetching.lock")
    try:
        with _part(part, card) as descriptor:
            _fetch_blocks(descriptor, card, ask, progress)
        try:
            return shelf.keep(part, card, limit_bytes=limit_bytes)
        except EncoderInvalidError:
            part.unlink(missing_ok=True)  # what does not fit is not gone on with
            raise
    finally:
        os.close(lock)


@contextmanager
def _part(part: Path, card: EncoderCard) -> Iterator[int]:
    """Open what came before, cut to whole blocks, after a look at the disk."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        whole = os.fstat(descriptor).st_size // BLOCK_BYTES * BLOCK_BYTES
        os.ftruncate(descriptor, min(whole, card.bytes // BLOCK_BYTES * BLOCK_BYTES))
        lacking = card.bytes - os.fstat(descriptor).st_size
        free = shutil.disk_usage(part.parent).free
        if free < lacking + SPARE_BYTES:
            raise DiskFullError(f"{part.parent}: {lacking} bytes are to come, {free} are free; make room first")
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fetch_blocks(descriptor: int, card: EncoderCard, ask: Ask, progress: Callable[[int], None]) -> None:
    here = os.fstat(descriptor).st_size
    progress(here)
    while here < card.bytes:
        number = here // BLOCK_BYTES
        length = block_length(card.bytes, number)
        content = ask(BLOCK_PATH, block_question(card.file, number), length)
        if content is None or len(content) != length:
            raise EncoderInvalidError(
                f"the coordinator's gateway did not send block {number} of {card.name} whole; what came is kept, and "
                "the same command goes on there",
                EncoderFault.NOT_FETCHED,
            )
        os.pwrite(descriptor, content, here)
        here += length
        progress(here)
