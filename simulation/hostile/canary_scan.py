"""Search bytes for planted identifiers in every spelling in which they could hide.

Spellings: UTF-8, UTF-16 (both orders), base64 (three alignments), hexadecimal (both cases), in capitals and in small
letters; and all of these inside zlib, gzip and raw-deflate streams found in the bytes. Encrypted bytes are searched
too, which costs time and finds nothing: that is the point.
"""

import base64
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MIN_CANARY_BYTES = 8
MAX_INFLATED_BYTES = 8 << 20
STREAM_STARTS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b\x08")


@dataclass(frozen=True, slots=True)
class Sighting:
    """A canary that was found: which, in which place, in which spelling."""

    canary: str
    place: str
    spelling: str


class CanaryScanner:
    """Looks for a fixed set of canaries; each must have at least ``MIN_CANARY_BYTES`` letters."""

    def __init__(self, canaries: Iterable[str]) -> None:
        self._by_start: dict[int, list[tuple[bytes, str, str]]] = {}
        for canary in canaries:
            if len(canary.encode()) < MIN_CANARY_BYTES:
                raise ValueError(f"a canary needs {MIN_CANARY_BYTES} bytes, or it would be found by chance")
            for spelling, needle in spellings(canary):
                start = int.from_bytes(needle[:8], "little")
                self._by_start.setdefault(start, []).append((needle, canary, spelling))
        self._starts = np.array(sorted(self._by_start), np.uint64)

    def scan(self, place: str, content: bytes) -> Iterator[Sighting]:
        """Yield each sighting in ``content`` and in the streams compressed inside it."""
        yield from self._scan_plain(place, content)
        for number, inflated in enumerate(streams_in(content)):
            yield from self._scan_plain(f"{place}, inflated stream {number}", inflated)

    def scan_folder(self, folder: Path, label: str) -> Iterator[Sighting]:
        """Yield each sighting in the names and contents of everything below ``folder``."""
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            yield from self._scan_plain(f"{label}: a name", name.encode(errors="surrogateescape"))
            if path.is_file() and not path.is_symlink():
                yield from self.scan(f"{label}: {name}", path.read_bytes())

    def _scan_plain(self, place: str, content: bytes) -> Iterator[Sighting]:
        for position in self._candidates(content):
            start = int.from_bytes(content[position : position + 8], "little")
            for needle, canary, spelling in self._by_start[start]:
                if content.startswith(needle, position):
                    yield Sighting(canary, place, spelling)

    def _candidates(self, content: bytes) -> list[int]:
        """Return positions whose eight bytes begin a needle: all windows as numbers, compared at once."""
        found: list[int] = []
        if not len(self._starts):
            return found
        for shift in range(8):
            windows = np.frombuffer(
                content, "<u8", count=max(0, len(content) - shift) // 8, offset=min(shift, len(content))
            )
            places = np.searchsorted(self._starts, windows)
            places[places == len(self._starts)] = 0
            hits = np.flatnonzero(self._starts[places] == windows)
            found += [8 * int(hit) + shift for hit in hits]
        return sorted(found)


def spellings(canary: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of each spelling of one canary."""
    for case, text in {"": canary, " capitals": canary.upper(), " small": canary.lower()}.items():
        plain = text.encode()
        yield f"utf-8{case}", plain
        yield f"utf-16 little endian{case}", text.encode("utf-16-le")
        yield f"utf-16 big endian{case}", text.encode("utf-16-be")
        yield f"hexadecimal{case}", plain.hex().encode()
        yield f"hexadecimal capitals{case}", plain.hex().upper().encode()
        for before in range(3):
            encoded = base64.b64encode(bytes(before) + plain)
            head, tail = (0, 2, 3)[before], (3 - (before + len(plain)) % 3) % 3
            core = encoded[head + (1 if before else 0) : len(encoded) - (tail + 1 if tail else 0)]
            yield f"base64 at {before}{case}", core
            yield f"base64 for addresses at {before}{case}", core.translate(bytes.maketrans(b"+/", b"-_"))


def streams_in(content: bytes) -> Iterator[bytes]:
    """Yield what inflates from each position that looks like a compressed stream, and from the very start."""
    for mark in STREAM_STARTS:
        position = content.find(mark)
        while position >= 0:
            wbits = 31 if mark.startswith(b"\x1f") else 15
            yield from inflated(content[position:], wbits)
            position = content.find(mark, position + 1)
    yield from inflated(content, -15)


def inflated(stream: bytes, wbits: int) -> Iterator[bytes]:
    """Yield what a stream inflates to, as far as it goes (nothing when it is none)."""
    inflater = zlib.decompressobj(wbits)
    try:
        plain = inflater.decompress(stream, MAX_INFLATED_BYTES)
    except zlib.error:
        return
    if len(plain) >= MIN_CANARY_BYTES:
        yield plain
