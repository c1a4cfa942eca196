"""A DICOM file as raw elements, so that any of them can be made to lie: wrong VR, wrong length, any bytes.

Only for explicit VR little endian (also inside compressed syntaxes), PS3.5 section 7.1.2.
"""

import struct
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np

from simulation.hospitals.dicom_syntaxes import Stored
from simulation.hospitals.dicom_writer import Form, Names, Template, uid_for

LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
UNDEFINED = 0xFFFFFFFF
PIXEL_DATA = 0x7FE00010
META_START = 132
SIDE_PX = 64

Tag = int


@dataclass(slots=True)
class Element:
    """One element; ``length`` may differ from the value's true length."""

    vr: bytes
    value: bytes
    length: int | None = None

    def encoded(self, tag: Tag) -> bytes:
        """Return tag, VR, length and value as they stand in a file."""
        length = len(self.value) if self.length is None else self.length
        head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, self.vr)
        if self.vr in LONG_VRS or length > 0xFFFF:
            return head + struct.pack("<HI", 0, length) + self.value
        return head + struct.pack("<H", length) + self.value


class RawFile:
    """A whole file: preamble, meta elements and data elements, the pixel data last."""

    def __init__(self, content: bytes) -> None:
        self.preamble = content[:META_START]
        self.elements: dict[Tag, Element] = {}
        position = META_START
        while position < len(content):
            position = self._take(content, position)

    def _take(self, content: bytes, position: int) -> int:
        group, element, vr = struct.unpack_from("<HH2s", content, position)
        is_long = vr in LONG_VRS
        (length,) = struct.unpack_from("<I" if is_long else "<H", content, position + (8 if is_long else 6))
        start = position + (12 if is_long else 8)
        stop = len(content) if length == UNDEFINED else start + length
        declared = UNDEFINED if length == UNDEFINED else None
        self.elements[group << 16 | element] = Element(vr, content[start:stop], declared)
        return stop

    def put(self, tag: Tag, vr: str, value: bytes | str, length: int | None = None) -> Self:
        """Set an element to any value and declared length (default: the true one, padded to even)."""
        raw = value.encode() if isinstance(value, str) else value
        if length is None and len(raw) % 2:
            raw += b"\0" if vr in {"UI", "OB"} else b" "
        self.elements[tag] = Element(vr.encode(), raw, length)
        return self

    def number(self, tag: Tag, value: int) -> Self:
        """Set an unsigned short (US)."""
        return self.put(tag, "US", struct.pack("<H", value))

    def drop(self, *tags: Tag) -> Self:
        """Remove elements."""
        for tag in tags:
            self.elements.pop(tag, None)
        return self

    def pixels(self, value: bytes, length: int | None = None, vr: str = "OW") -> Self:
        """Replace the pixel data."""
        self.elements[PIXEL_DATA] = Element(vr.encode(), value, length)
        return self

    def fragments(self, *fragments: bytes, offsets: bytes = b"") -> Self:
        """Replace the pixel data by items: the offset table and ``fragments``, then the delimiter (PS3.5 A.4)."""
        items = b"".join(item(fragment) for fragment in (offsets, *fragments))
        return self.pixels(items + b"\xfe\xff\xdd\xe0\0\0\0\0", UNDEFINED, "OB")

    def first_fragment(self) -> bytes:
        """Return the first fragment after the offset table."""
        value = self.elements[PIXEL_DATA].value
        (table,) = struct.unpack_from("<I", value, 4)
        (length,) = struct.unpack_from("<I", value, 12 + table)
        return value[16 + table : 16 + table + length]

    def meta(self) -> bytes:
        """Return preamble and file meta elements with a true group length."""
        tags = sorted(tag for tag in self.elements if tag >> 16 == 2 and tag != 0x00020000)
        rest = b"".join(self.elements[tag].encoded(tag) for tag in tags)
        stated = self.elements.get(0x00020000)
        length = stated.encoded(0x00020000) if stated else b""
        if stated and stated.length is None and len(stated.value) == 4:
            length = Element(b"UL", struct.pack("<I", len(rest))).encoded(0x00020000)
        return self.preamble + length + rest

    def dataset(self) -> bytes:
        """Return everything after the file meta."""
        return b"".join(self.elements[tag].encoded(tag) for tag in sorted(self.elements) if tag >> 16 != 2)

    def content(self) -> bytes:
        """Return the whole file."""
        return self.meta() + self.dataset()


def item(value: bytes, length: int | None = None) -> bytes:
    """Return an item with a defined length, true unless given."""
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value) if length is None else length) + value


def names_of(case: str, part: int = 0) -> Names:
    """Derive the identifiers of a case; ``part`` tells several files apart (same patient, other series)."""
    study, series, instance = (uid_for("hostile", case, level, part) for level in ("study", "series", "instance"))
    return Names(uid_for("hostile", case)[-12:], study, series, instance, accession="")


def frame(part: int = 0) -> Stored:
    """Return a 64 x 64 picture with a gradient and a disc; ``part`` moves the disc."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    disc = (y - 20 - part) ** 2 + (x - 30) ** 2 < 150
    return np.asarray(10 * x + 5 * y + 900 * disc, np.uint16)


@cache
def template(syntax: str, modality: str) -> Template:
    """Return the template of a plain image in one syntax."""
    intercept = -1024.0 if modality == "CT" else 0.0
    return Template(Form(modality, SIDE_PX, SIDE_PX, syntax=syntax, intercept=intercept))


def plain(case: str, syntax: str = "explicit", modality: str = "CT", part: int = 0) -> RawFile:
    """Return a valid 64 x 64 image, ready to be damaged."""
    return RawFile(template(syntax, modality).file(names_of(case, part), frame(part)))
