"""Compressed frames: found, counted, and their own headers held against the data set's before a decoder sees them.

A codestream that says 60000 x 60000 under a header of 512 x 512 makes decoders allocate, loop or crash.
Sources: PS3.5 annex A.4 (encapsulation), annex G (RLE); ITU-T T.81 annex B, T.87 annex C (JPEG, JPEG-LS markers);
T.800 annex A.5.1 (JPEG 2000 SIZ).
"""

import struct

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragmented_frames

from client.dicom.header import JPEG_2000
from client.dicom.image_module import ImageModule
from client.dicom.reject import RejectCode, Rejected

JPEG_FRAME_MARKERS = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xF7})
J2K_START = b"\xff\x4f\xff\x51"
J2K_SEARCH_BYTES = 4096  # a JP2 box may come first
RLE_HEADER_BYTES = 64


def frames_of(dataset: Dataset, module: ImageModule) -> list[bytes]:
    """Return the compressed frames.

    Raises: Rejected(encapsulation), Rejected(frame_count).
    """
    try:
        frames = [
            b"".join(fragments)
            for fragments in generate_fragmented_frames(dataset.PixelData, number_of_frames=module.frames)
        ]
    except MemoryError:
        raise Rejected(RejectCode.MEMORY) from None
    except Exception:  # noqa: BLE001 (a parser may throw anything)
        raise Rejected(RejectCode.ENCAPSULATION) from None
    if len(frames) != module.frames:
        raise Rejected(RejectCode.FRAME_COUNT)
    return frames


def check_frame(frame: bytes, syntax: str, module: ImageModule) -> None:
    """Hold the codestream's own size against the data set's.

    Raises: Rejected(codestream) when no header is found, Rejected(codestream_size) when it disagrees.
    """
    if syntax == uid.RLELossless:
        _check_rle(frame, module)
        return
    rows, columns, samples = _j2k_size(frame) if syntax in JPEG_2000 else _jpeg_size(frame)
    if (rows, columns, samples) != (module.rows, module.columns, module.samples):
        raise Rejected(RejectCode.CODESTREAM_SIZE)


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


def _j2k_size(frame: bytes) -> tuple[int, int, int]:
    start = frame.find(J2K_START, 0, J2K_SEARCH_BYTES)
    if start < 0 or len(frame) < start + 42:
        raise Rejected(RejectCode.CODESTREAM)
    right, bottom, left, top = struct.unpack(">4L", frame[start + 8 : start + 24])
    (samples,) = struct.unpack(">H", frame[start + 40 : start + 42])
    return bottom - top, right - left, samples


def _jpeg_size(frame: bytes) -> tuple[int, int, int]:
    if frame[:2] != b"\xff\xd8":
        raise Rejected(RejectCode.CODESTREAM)
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in JPEG_FRAME_MARKERS:
            rows, columns, samples = struct.unpack(">HHB", frame[at + 5 : at + 10])
            return rows, columns, samples
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise Rejected(RejectCode.CODESTREAM)
