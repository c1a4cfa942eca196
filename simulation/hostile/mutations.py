"""Random damage to good images: what nobody thought of. Deterministic by seed, any number of files.

Each file starts as a valid image (any modality and syntax) and goes through one to six blows: bytes changed anywhere,
in the header or in the pixels, pieces cut out, doubled or moved, lengths and VRs of elements replaced, values replaced
by extreme ones. Every verdict is right, also "accepted"; the question is whether each file gets one, and at what cost.
"""

import random
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from client.dicom.reject import RejectCode
from simulation.hospitals.dicom_syntaxes import SYNTAXES
from simulation.hostile.case import ACCEPTED, HostileCase, any_of
from simulation.hostile.raw_file import LONG_VRS, META_START, PIXEL_DATA, RawFile, frame, names_of, plain, template

ANY = any_of(ACCEPTED, *RejectCode)
RAW_SYNTAXES = ("explicit", "rle", "jpeg_ls", "jpeg_lossless", "jpeg_2000")
TEXTS = (b"", b"nan", b"-inf", b"1e308", b"-1", b"99999999999", b"\\" * 40, b"\x1b$B" * 3, b"9" * 300)
NUMBERS = (b"\0\0", b"\xff\xff", b"\xff\xff\xff\xff", bytes(64), struct.pack("<d", float("nan")))
EXTREMES = TEXTS + NUMBERS
VRS = (b"US", b"SS", b"UL", b"DS", b"IS", b"SQ", b"OB", b"OW", b"UN", b"UT", b"PN", b"AT", b"FD", b"??", b"\0\0")
LENGTHS = (0, 1, 2, 3, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)

Blow = Callable[[random.Random, bytearray], None]


def change_bytes(rng: random.Random, content: bytearray) -> None:
    """Change 1 to 64 bytes anywhere."""
    for _ in range(2 ** rng.randrange(7)):
        content[rng.randrange(len(content))] = rng.randrange(256)


def change_header(rng: random.Random, content: bytearray) -> None:
    """Change 1 to 8 bytes of file meta and header."""
    for _ in range(2 ** rng.randrange(4)):
        content[rng.randrange(META_START, min(len(content), 1400))] = rng.randrange(256)


def cut_out(rng: random.Random, content: bytearray) -> None:
    """Remove a piece."""
    start = rng.randrange(len(content) - 1)
    del content[start : start + 2 ** rng.randrange(12)]


def cut_off(rng: random.Random, content: bytearray) -> None:
    """Remove the end."""
    del content[rng.randrange(140, len(content)) :]


def double(rng: random.Random, content: bytearray) -> None:
    """Insert a copy of a piece somewhere."""
    start, to = rng.randrange(len(content)), rng.randrange(META_START, len(content))
    content[to:to] = content[start : start + 2 ** rng.randrange(12)]


def fill(rng: random.Random, content: bytearray) -> None:
    """Overwrite a piece with one value."""
    start, length = rng.randrange(META_START, len(content)), 2 ** rng.randrange(10)
    content[start : start + length] = bytes([rng.choice((0, 0xFF, 0x5C, 0x41))]) * len(content[start : start + length])


BLOWS: tuple[Blow, ...] = (change_bytes, change_header, cut_out, cut_off, double, fill)


def change_element(rng: random.Random, raw: RawFile) -> None:
    """Replace value, VR or stated length of one element."""
    tag = rng.choice(list(raw.elements))
    element = raw.elements[tag]
    what = rng.randrange(3)
    if what == 0 and tag != PIXEL_DATA:
        element.value = rng.choice(EXTREMES)
    elif what == 1:
        element.vr = rng.choice(VRS)
    else:
        length = rng.choice(LENGTHS)
        element.length = length if element.vr in LONG_VRS else length & 0xFFFF


def mutated(name: str, seed: str) -> bytes:
    """Return one damaged file; ``name`` makes its identifiers, ``seed`` its damage."""
    rng = random.Random(seed)
    modality = rng.choice(("CT", "MR", "DX", "CR"))
    if rng.random() < 0.6:
        raw = plain(name, rng.choice(RAW_SYNTAXES), modality)
        for _ in range(rng.randrange(1, 4)):
            change_element(rng, raw)
        content = bytearray(raw.content())
    else:
        syntax = rng.choice(list(SYNTAXES))  # also those that RawFile cannot take apart
        content = bytearray(template(syntax, modality).file(names_of(name), frame()))
    for _ in range(rng.randrange(4)):
        rng.choice(BLOWS)(rng, content)
        if len(content) < 200:
            break
    return bytes(content)


def mutation_cases(count: int, seed: int) -> tuple[HostileCase, ...]:
    """Return ``count`` cases of one damaged file each."""

    def make(folder: Path, name: str, number: int) -> None:
        (folder / "image.dcm").write_bytes(mutated(name, f"{seed} {number}"))

    return tuple(
        HostileCase(f"mutation_{seed}_{number}", partial(make, number=number), (ANY,)) for number in range(count)
    )
