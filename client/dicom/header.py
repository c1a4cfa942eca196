"""Bytes of a file -> DICOM data set, with every length bounded before it is believed.

Sources: DICOM PS3.10 section 7 (file format), PS3.5 annex A (transfer syntaxes).
"""

import zlib
from io import BytesIO
from typing import Literal

from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from client.dicom.limits import MAX_ELEMENTS, MAX_INFLATED_BYTES, MAX_META_BYTES
from client.dicom.reject import RejectCode, Rejected

PREAMBLE_BYTES = 128
PIXEL_DATA = 0x7FE00010
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
UNDEFINED_LENGTH = 0xFFFFFFFF
LONG_VRS = (b"OB", b"OW", b"UN")  # with two reserved bytes and a length of four, PS3.5 section 7.1.2

NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
JPEG = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1})
JPEG_LS = frozenset({uid.JPEGLSLossless, uid.JPEGLSNearLossless})
JPEG_2000 = frozenset({uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K})
ENCAPSULATED = JPEG | JPEG_LS | JPEG_2000 | {uid.RLELossless}


def read_header(content: bytes, *, pixels: bool = True, whole: bool = False) -> Dataset:
    """Parse a Part 10 file; with ``pixels=False`` everything from the pixel data on is left out.

    The pixel data is a view of ``content``, never a copy (a tomosynthesis has half a gigabyte of it), and what follows
    it is not read; with ``whole`` pydicom reads every element itself, for a library that wants all of them as bytes.

    Values are converted by pydicom only when they are asked for, so any later access may raise anything: callers
    stand inside ``instance.verdict``. Edge cases: no file meta, no preamble or no transfer syntax -> refused;
    deflated -> inflated up to ``MAX_INFLATED_BYTES``.
    Raises: Rejected.
    """
    if content[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] != b"DICM":
        raise Rejected(RejectCode.NOT_PART10)
    meta, start = _read_meta(content)
    syntax = meta.get("TransferSyntaxUID")
    if not isinstance(syntax, str) or syntax not in NATIVE | ENCAPSULATED:
        raise Rejected(RejectCode.TRANSFER_SYNTAX if syntax else RejectCode.BAD_META)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        content, start = _inflated(content[start:]), 0
        meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    stream = BytesIO(content)
    stream.seek(start)
    dataset = _parse(stream, str(syntax), whole=whole)
    if pixels and not whole:
        _attach_pixels(dataset, content, stream.tell())
    dataset.file_meta = meta
    return dataset


def _attach_pixels(dataset: Dataset, content: bytes, start: int) -> None:
    """Give a data set that was read up to ``start`` the pixel data that begins there, as a view; none there: nothing.

    A length that reaches beyond the file is cut to the file: ``check_stream`` holds what is there against what should.
    """
    implicit, little = dataset.original_encoding
    order: Literal["little", "big"] = "little" if little else "big"
    head = content[start : start + 12]
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
    if len(head) < 8 or tag != PIXEL_DATA:
        return
    if implicit:
        length, at = int.from_bytes(head[4:8], order), start + 8
    elif head[4:6] in LONG_VRS:
        length, at = int.from_bytes(head[8:12], order), start + 12
    else:
        length, at = int.from_bytes(head[6:8], order), start + 8
    stop = len(content) if length == UNDEFINED_LENGTH else at + length
    pixels = DataElement(PIXEL_DATA, "OW", memoryview(content)[at:stop], already_converted=True)
    pixels.is_undefined_length = length == UNDEFINED_LENGTH
    dataset[PIXEL_DATA] = pixels


def _read_meta(content: bytes) -> tuple[FileMetaDataset, int]:
    stream = BytesIO(content[: PREAMBLE_BYTES + 4 + MAX_META_BYTES])
    stream.seek(PREAMBLE_BYTES + 4)
    try:
        meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
        return FileMetaDataset(meta), stream.tell()
    except MemoryError:
        raise Rejected(RejectCode.MEMORY) from None
    except Exception:  # noqa: BLE001 (a parser may throw anything)
        raise Rejected(RejectCode.BAD_META) from None


def _inflated(deflated: bytes) -> bytes:
    """Inflate within the budget (RFC 1951): a bomb of 2 MB would otherwise become 2 GB inside the parser."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(deflated, MAX_INFLATED_BYTES)
    except zlib.error:
        raise Rejected(RejectCode.PARSE) from None
    if inflater.unconsumed_tail or not inflater.eof:
        raise Rejected(RejectCode.DEFLATE_LIMIT)
    return content


def _parse(stream: BytesIO, syntax: str, *, whole: bool) -> Dataset:
    implicit = syntax == uid.ImplicitVRLittleEndian
    little = syntax != uid.ExplicitVRBigEndian
    try:
        dataset = read_dataset(stream, implicit, little, stop_when=None if whole else _at_pixels)
    except RecursionError:
        raise Rejected(RejectCode.NESTING) from None
    except MemoryError:
        raise Rejected(RejectCode.MEMORY) from None
    except Exception:  # noqa: BLE001 (a parser may throw anything)
        raise Rejected(RejectCode.PARSE) from None
    if len(dataset) > MAX_ELEMENTS:
        raise Rejected(RejectCode.TOO_MANY_ELEMENTS)
    return dataset


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) in PIXEL_TAGS  # as a plain number: comparing pydicom's tags costs half of a small header
