"""One frame of an image as stored values: the only place that calls a decoder.

Decoders by transfer syntax are named, never "whatever is installed": python-gdcm would be picked first by pydicom and
ends the process on hostile input (36 of 2400 mutated streams).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from client.dicom import jpeg_plugin
from client.dicom.codestream import check_frame, frames_of
from client.dicom.header import ENCAPSULATED, JPEG_2000, JPEG_LS
from client.dicom.image_module import ImageModule
from client.dicom.reject import RejectCode, Rejected

Array = npt.NDArray[np.integer[Any]]

PLUGIN_OF_SYNTAX = {
    uid.RLELossless: "pylibjpeg",
    uid.JPEGBaseline8Bit: "pillow",
    **dict.fromkeys(jpeg_plugin.SYNTAXES, jpeg_plugin.PLUGIN),
    **dict.fromkeys(JPEG_LS, "pyjpegls"),
    **dict.fromkeys(JPEG_2000, "pylibjpeg"),
}
PLAIN = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
jpeg_plugin.register()


def check_stream(dataset: Dataset, module: ImageModule, chosen: Iterable[int]) -> None:
    """Check that the pixel data is as long as its description says; compressed: of the frames that will be decoded.

    Raises: Rejected.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in ENCAPSULATED:
        frames = frames_of(dataset, module)
        for index in chosen:
            check_frame(frames[index], syntax, module)
        return
    expected = module.frames * module.frame_bytes
    if module.photometric == "YBR_FULL_422":  # two samples of colour for two pixels, PS3.3 section C.7.6.3.1.2
        expected = expected // 3 * 2
    if not expected <= len(dataset.PixelData) <= expected + 1 + expected // module.frames:
        raise Rejected(RejectCode.PIXEL_LENGTH)


def stored_values(dataset: Dataset, module: ImageModule, frame_index: int) -> Array:
    """Decode one frame: (rows, columns), or (rows, columns, 3) for colour (as RGB); integers as stored.

    Raises: Rejected(decode), Rejected(memory). Decoders raise even BaseException (a panic of Rust code) and
    StopIteration (a lying offset table): everything but a wish to stop the program becomes a code.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in PLAIN and module.samples == 1 and module.bits_allocated in (8, 16):
        return _plain_values(dataset.PixelData, module, frame_index)
    plugin = PLUGIN_OF_SYNTAX.get(syntax, "")
    try:
        values = pixel_array(dataset, index=frame_index, decoding_plugin=plugin)
    except MemoryError:
        raise Rejected(RejectCode.MEMORY) from None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001
        raise Rejected(RejectCode.DECODE) from None
    expected = (module.rows, module.columns, 3)[: 2 + (module.samples == 3)]
    if values.shape != expected:
        raise Rejected(RejectCode.DECODE)
    return values


def _plain_values(content: bytes, module: ImageModule, frame_index: int) -> Array:
    """Read a frame of uncompressed little-endian grey values: the common case, without pydicom's general machinery.

    Bits above BitsStored may hold anything (old overlays): shifting up and down again clears them and keeps the sign.
    """
    dtype = np.dtype(f"<{'i' if module.signed else 'u'}{module.bits_allocated // 8}")
    offset = frame_index * module.frame_bytes
    values = np.frombuffer(content, dtype, module.rows * module.columns, offset).reshape(module.rows, module.columns)
    spare = module.bits_allocated - module.bits_stored
    return values if spare == 0 else (values << spare) >> spare
