"""Bytes of a file -> DICOM data set, with every length bounded before it is believed.

Sources: DICOM PS3.10 section 7 (file format), PS3.5 annex A (transfer syntaxes).
"""

import zlib
from io import BytesIO

from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from client.dicom.limits import MAX_ELEMENTS, MAX_INFLATED_BYTES, MAX_META_BYTES
from client.dicom.reject import RejectCode, Rejected

PREAMBLE_BYTES = 128
PIXEL_GROUP = 0x7FE0

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
JPEG_2000 = frozenset({uid.JPEG2000Lossless, uid.JPEG2000})
ENCAPSULATED = JPEG | JPEG_LS | JPEG_2000 | {uid.RLELossless}


def read_header(content: bytes, *, pixels: bool = True) -> Dataset:
    """Parse a Part 10 file; with ``pixels=False`` everything from the pixel data on is left out.

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
    stream = BytesIO(content)
    stream.seek(start)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        stream = BytesIO(_inflated(content[start:]))
        meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset = _parse(stream, str(syntax), pixels=pixels)
    dataset.file_meta = meta
    return dataset


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


def _parse(stream: BytesIO, syntax: str, *, pixels: bool) -> Dataset:
    implicit = syntax == uid.ImplicitVRLittleEndian
    little = syntax != uid.ExplicitVRBigEndian
    try:
        dataset = read_dataset(stream, implicit, little, stop_when=None if pixels else _at_pixels)
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
    return tag.group == PIXEL_GROUP and tag.element in (0x0008, 0x0009, 0x0010)
