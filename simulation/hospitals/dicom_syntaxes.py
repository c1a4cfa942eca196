"""The transfer syntaxes our DICOM files are written in, and the encoder of each.

Every encoder here is lossless and free of GPL code. Source: DICOM PS3.5 section 8 and annex A; UIDs from PS3.6 annex A.
"""

from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import jpeg_ls
import numpy as np
import rle.utils
from numpy.typing import NDArray

Stored = NDArray[np.uint8 | np.uint16 | np.int16]


@dataclass(frozen=True, slots=True)
class Syntax:
    """A transfer syntax: its UID, its byte order and VR form, and the encoder of one frame (None: native pixels)."""

    uid: str
    encode: Callable[[Stored, int], bytes] | None = None
    implicit: bool = False
    big_endian: bool = False
    deflated: bool = False


def encode_rle(frame: Stored, bits_stored: int) -> bytes:
    """Encode one frame (H, W) or (H, W, 3) as RLE, PS3.5 annex G."""
    rows, columns, samples = *frame.shape[:2], frame[0, 0].size
    bits = frame.dtype.itemsize * 8
    little = frame.astype(frame.dtype.newbyteorder("<"), copy=False)
    return bytes(
        rle.utils.encode_pixel_data(
            little.tobytes(),
            byteorder="<",
            rows=rows,
            columns=columns,
            samples_per_pixel=samples,
            bits_allocated=bits,
            bits_stored=bits_stored,
            number_of_frames=1,
            photometric_interpretation=photometric(frame),
            pixel_representation=0,
        )
    )


def encode_jpeg_ls(frame: Stored, bits_stored: int) -> bytes:
    """Encode one unsigned frame (H, W) or (H, W, 3) as lossless JPEG-LS (ISO 14495-1)."""
    rows, columns, samples = *frame.shape[:2], frame[0, 0].size
    source = frame.tobytes()
    return bytes(
        jpeg_ls.encode_pixel_data(
            source,
            rows=rows,
            columns=columns,
            samples_per_pixel=samples,
            bits_allocated=frame.dtype.itemsize * 8,
            bits_stored=bits_stored,
            photometric_interpretation=photometric(frame),
            planar_configuration=0,
        )
    )


def encode_jpeg_lossless(frame: Stored, bits_stored: int) -> bytes:
    """Encode one unsigned frame (H, W) or (H, W, 3) as JPEG lossless, first-order prediction (process 14, SV 1)."""
    space = "RGB" if frame.ndim == 3 else None  # colours as they are
    stream = imagecodecs.jpeg8_encode(
        frame, lossless=True, predictor=1, bitspersample=bits_stored, colorspace=space, outcolorspace=space
    )
    return bytes(stream)


def encode_jpeg_2000(frame: Stored, bits_stored: int) -> bytes:
    """Encode a frame (H, W) or (H, W, 3) as a lossless JPEG 2000 codestream (ISO 15444-1), colours as they are."""
    resolutions = min(6, min(frame.shape[:2]).bit_length())  # small frames have fewer
    options = {"codecformat": "J2K", "reversible": True, "resolutions": resolutions, "bitspersample": bits_stored}
    return bytes(imagecodecs.jpeg2k_encode(frame, level=0, mct=False, **options))


def photometric(frame: Stored) -> str:
    """Return the photometric interpretation of a frame."""
    return "RGB" if frame.ndim == 3 else "MONOCHROME2"


SYNTAXES = {
    "implicit": Syntax("1.2.840.10008.1.2", implicit=True),
    "explicit": Syntax("1.2.840.10008.1.2.1"),
    "big_endian": Syntax("1.2.840.10008.1.2.2", big_endian=True),
    "deflated": Syntax("1.2.840.10008.1.2.1.99", deflated=True),
    "rle": Syntax("1.2.840.10008.1.2.5", encode_rle),
    "jpeg_lossless": Syntax("1.2.840.10008.1.2.4.70", encode_jpeg_lossless),
    "jpeg_ls": Syntax("1.2.840.10008.1.2.4.80", encode_jpeg_ls),
    "jpeg_2000": Syntax("1.2.840.10008.1.2.4.90", encode_jpeg_2000),
}
