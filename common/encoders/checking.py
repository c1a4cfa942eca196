"""Is this file the encoder of this card, and may it be run? Nothing runs it before the answer is yes.

Length and SHA-256 first, by streaming. Then another process parses it (``common.encoders.inspecting``), because a
hostile file must be able to end nothing but that.
"""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

from common.encoders.card import EncoderCard
from common.encoders.errors import EncoderFault, EncoderInvalidError
from common.errors import FileTooLargeError
from common.files import open_bounded, parsed_json
from common.flower.environment import child_environment

LARGEST_ENCODER_BYTES: Final = 1_500_000_000  # unless a policy or a setting says another number
LARGEST_AT_ONCE_BYTES: Final = 1 << 32  # of memory for one image, beside the weights
TIMEOUT_S: Final = 900.0
MAX_ANSWER_BYTES: Final = 4096
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class EncoderFacts:
    """What was found out about a file that may be run, for one image.

    ``bytes_at_once``: of memory beside the weights, at most; ``multiply_adds``: an estimate of its work.
    """

    bytes_at_once: int
    multiply_adds: int


def check_encoder(path: Path, card: EncoderCard, *, limit_bytes: int = LARGEST_ENCODER_BYTES) -> EncoderFacts:
    """Check that ``path`` is the file of ``card``, of the form that is allowed, and bounded in memory and work.

    Takes about one second, and for a file of 1 GB several; the memory of this process does not grow with the file.
    Raises: EncoderInvalidError, FileUnreadableError.
    """
    if card.bytes > limit_bytes:
        raise EncoderInvalidError(
            f"the encoder {card.name} has {card.bytes} bytes, the limit is {limit_bytes}", EncoderFault.TOO_LARGE
        )
    with open_encoder(path, card) as file:
        return _inspected(path, file, card)


def open_encoder(path: Path, card: EncoderCard) -> BufferedReader:
    """Open a file after comparing its length and SHA-256 with its card, and stand at its beginning.

    Raises: EncoderInvalidError, FileUnreadableError.
    """
    try:
        file = open_bounded(path, card.bytes)
    except FileTooLargeError:
        raise _another(path) from None
    try:
        is_it = os.fstat(file.fileno()).st_size == card.bytes and file_digest(file) == card.file
        file.seek(0)
    except BaseException:
        file.close()
        raise
    if not is_it:
        file.close()
        raise _another(path)
    return file


def file_digest(file: BufferedReader) -> str:
    """Return the SHA-256 of what is left of a file, 64 hexadecimal digits."""
    found = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        found.update(chunk)
    return found.hexdigest()


def _another(path: Path) -> EncoderInvalidError:
    return EncoderInvalidError(
        f"{path}: not the file of the card: its length or SHA-256 differs; was it copied whole?",
        EncoderFault.OTHER_FILE,
    )


def _inspected(path: Path, file: BufferedReader, card: EncoderCard) -> EncoderFacts:
    with subprocess.Popen(
        (sys.executable, "-m", "common.encoders.inspecting", card.canonical().decode()),
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1"),
    ) as child:
        try:
            said, _ = child.communicate(timeout=TIMEOUT_S)
        except BaseException as error:
            child.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise EncoderInvalidError(
                    f"{path}: looking into it was not done in {TIMEOUT_S:g} s", EncoderFault.NOT_CHECKED
                ) from None
            raise
    try:
        answer = parsed_json(said[:MAX_ANSWER_BYTES])
        if "refused" in answer:
            raise EncoderInvalidError(f"{path}: {answer['refused']}")
        return EncoderFacts(int(answer["bytes_at_once"]), int(answer["multiply_adds"]))
    except (ValueError, TypeError, KeyError):
        raise EncoderInvalidError(
            f"{path}: looking into it ended the process that did; it may be made to do so", EncoderFault.NOT_CHECKED
        ) from None
