"""Compressed frames: found, and their own headers held against the data set's before a decoder sees them.

A codestream that says 60000 x 60000 under a header of 512 x 512 makes decoders allocate, loop or crash.
Sources: PS3.5 annex A.4 (encapsulation), annex G (RLE); ITU-T T.81 annex B, T.87 annex C (JPEG, JPEG-LS markers);
T.800 annex A.5.1 (JPEG 2000 SIZ).
"""

import struct
from dataclasses import dataclass

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragmented_frames

from client.dicom.header import JPEG_2000
from client.dicom.image_module import ImageModule
from client.dicom.reject import RejectCode, Rejected

JPEG_FRAME_MARKERS = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xF7})
JPEG_END = b"\xff\xd9"
J2K_START = b"\xff\x4f\xff\x51"
J2K_SEARCH_BYTES = 4096  # a JP2 box may come first
RLE_HEADER_BYTES = 64
ITEM, DELIMITER = 0xE000FFFE, 0xE0DDFFFE  # tags as read little endian, PS3.5 section A.4


@dataclass(frozen=True, slots=True)
class StreamSize:
    """What a codestream says of itself. ``precision``: bits of one sample."""

    rows: int
    columns: int
    samples: int
    precision: int


def fragments_of(dataset: Dataset) -> list[memoryview]:
    """Return the fragments of the pixel data (without the offset table), as views.

    Raises: Rejected(encapsulation).
    """
    content = memoryview(dataset.PixelData)
    found: list[memoryview] = []
    at = 0
    while at + 8 <= len(content):
        tag, length = struct.unpack_from("<LL", content, at)
        if tag == DELIMITER:
            break
        at += 8
        if tag != ITEM or length > len(content) - at:
            raise Rejected(RejectCode.ENCAPSULATION)
        found.append(content[at : at + length])
        at += length
    if not found:
        raise Rejected(RejectCode.ENCAPSULATION)
    return found[1:]


def frame_of(dataset: Dataset, module: ImageModule, frame_index: int) -> bytes:
    """Return one compressed frame; only that frame is copied, except where only an offset table tells frames apart.

    Raises: Rejected(encapsulation), Rejected(frame_count).
    """
    fragments = fragments_of(dataset)
    if module.frames == 1:
        return b"".join(fragments)
    if len(fragments) == module.frames:
        return bytes(fragments[frame_index])
    return _frames_of_several_fragments(dataset, module)[frame_index]


def _frames_of_several_fragments(dataset: Dataset, module: ImageModule) -> list[bytes]:
    try:
        frames = [
            b"".join(fragments)
            for fragments in generate_fragmented_frames(bytes(dataset.PixelData), number_of_frames=module.frames)
        ]
    except MemoryError:
        raise Rejected(RejectCode.MEMORY) from None
    except Exception:  # noqa: BLE001 (a parser may throw anything)
        raise Rejected(RejectCode.ENCAPSULATION) from None
    if len(frames) != module.frames:
        raise Rejected(RejectCode.FRAME_COUNT)
    return frames


def check_frame(frame: bytes, syntax: str, module: ImageModule) -> int:
    """Hold the codestream's own size against the data set's; return the precision of its samples in bits.

    Raises: Rejected(codestream) when no header is found or the stream of a JPEG has no end (a broken transfer: the
    decoder would invent the rest), Rejected(codestream_size) when it disagrees.
    """
    if syntax == uid.RLELossless:
        _check_rle(frame, module)
        return module.bits_allocated
    size = _j2k_size(frame) if syntax in JPEG_2000 else _jpeg_size(frame)
    if (size.rows, size.columns, size.samples) != (module.rows, module.columns, module.samples):
        raise Rejected(RejectCode.CODESTREAM_SIZE)
    return size.precision


def _check_rle(frame: bytes, module: ImageModule) -> None:
    segments = module.samples * (module.bits_allocated // 8)
    if len(frame) < RLE_HEADER_BYTES:
        raise Rejected(RejectCode.CODESTREAM)
    count, *offsets = struct.unpack("<16L", frame[:RLE_HEADER_BYTES])
    if count != segments:
        raise Rejected(RejectCode.CODESTREAM_SIZE)
    used = offsets[:segments]
    if used[0] != RLE_HEADER_BYTES or sorted(used) != used or used[-1] > len(frame):
        raise Rejected(RejectCode.CODESTREAM)


def _j2k_size(frame: bytes) -> StreamSize:
    start = frame.find(J2K_START, 0, J2K_SEARCH_BYTES)
    if start < 0 or len(frame) < start + 43:
        raise Rejected(RejectCode.CODESTREAM)
    right, bottom, left, top = struct.unpack(">4L", frame[start + 8 : start + 24])
    samples, depth = struct.unpack(">HB", frame[start + 40 : start + 43])
    return StreamSize(bottom - top, right - left, samples, (depth & 0x7F) + 1)


def _jpeg_size(frame: bytes) -> StreamSize:
    if frame[:2] != b"\xff\xd8" or JPEG_END not in frame[-64:]:
        raise Rejected(RejectCode.CODESTREAM)
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in JPEG_FRAME_MARKERS:
            precision, rows, columns, samples = struct.unpack(">BHHB", frame[at + 4 : at + 10])
            return StreamSize(rows, columns, samples, precision)
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise Rejected(RejectCode.CODESTREAM)
