"""One frame of an image as stored values: the only place that calls a decoder.

Decoders by transfer syntax are named, never "whatever is installed": python-gdcm would be picked first by pydicom and
ends the process on hostile input (36 of 2400 mutated streams). Grey frames go straight to their decoder, colour through
pydicom, which knows planes and colour spaces.
"""

from collections.abc import Callable, Iterable
from typing import Any

import imagecodecs
import jpeg_ls
import numpy as np
import numpy.typing as npt
import rle.utils
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from client.dicom import jpeg_plugin
from client.dicom.attributes import integer
from client.dicom.codestream import check_frame, frame_of
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
    if module.samples == 3:
        _check_colours(dataset, module, native=syntax not in ENCAPSULATED)
    if syntax in ENCAPSULATED:
        for index in chosen:
            check_frame(frame_of(dataset, module, index), syntax, module)
        return
    if dataset["PixelData"].is_undefined_length:  # only a compressed stream may say so, PS3.5 section A.4
        raise Rejected(RejectCode.PIXEL_LENGTH)
    expected = module.frames * module.frame_bytes
    if module.photometric == "YBR_FULL_422":  # two samples of colour for two pixels, PS3.3 section C.7.6.3.1.2
        expected = expected // 3 * 2
    if not expected <= len(dataset.PixelData) <= expected + 1 + expected // module.frames:
        raise Rejected(RejectCode.PIXEL_LENGTH)


def _check_colours(dataset: Dataset, module: ImageModule, *, native: bool) -> None:
    """Refuse colours whose order or transformation is not said, or said in a way that cannot be.

    A compressed stream knows its own order, so there PlanarConfiguration may lack. Source: PS3.3 section C.7.6.3.1.2.
    Raises: Rejected(missing_attribute), Rejected(pixel_module).
    """
    planar = integer(dataset, "PlanarConfiguration", None if native else 0)
    impossible = planar not in (0, 1) or module.signed
    if native:
        impossible |= module.photometric in {"YBR_RCT", "YBR_ICT"}  # made by a compression, so no colours without it
        impossible |= module.photometric == "YBR_FULL_422" and (planar == 1 or module.columns % 2 == 1)
    if impossible:
        raise Rejected(RejectCode.PIXEL_MODULE)
    dataset.PlanarConfiguration = planar


def stored_values(dataset: Dataset, module: ImageModule, frame_index: int) -> Array:
    """Decode one frame: (rows, columns), or (rows, columns, 3) for colour (as RGB); integers as stored.

    Raises: Rejected(decode), Rejected(memory).
    """
    if module.samples == 3:
        return decoded(module, lambda: _through_pydicom(dataset, frame_index))
    words, precision = grey_words(dataset, module, frame_index)
    return masked(words, module, precision)


def sample_bits(dataset: Dataset, module: ImageModule, frame_index: int) -> int:
    """Return how many bits a colour has: those stored, or fewer where a compressed stream holds fewer.

    Raises: those of ``check_frame``; Rejected(codestream_size) for more than are allocated.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in ENCAPSULATED:
        return module.bits_stored
    precision = check_frame(frame_of(dataset, module, frame_index), syntax, module)
    if precision > module.bits_allocated:
        raise Rejected(RejectCode.CODESTREAM_SIZE)
    return min(module.bits_stored, precision)


def grey_words(dataset: Dataset, module: ImageModule, frame_index: int) -> tuple[Array, int]:
    """Return the words of a grey frame as they come, and how many of their bits the stream says it holds.

    Words have the size of BitsAllocated and the sign of PixelRepresentation; bits above BitsStored may hold anything
    (old overlays, a padding value that does not fit below).
    Raises: Rejected(decode), Rejected(memory), and those of ``check_frame``.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    dtype = np.dtype(f"{'i' if module.signed else 'u'}{module.bits_allocated // 8}")
    is_big = syntax == uid.ExplicitVRBigEndian and module.bits_allocated > 8  # bytes in swapped words: pydicom's
    if syntax in PLAIN or is_big:
        offset, count = frame_index * module.frame_bytes, module.rows * module.columns
        words = np.frombuffer(dataset.PixelData, dtype.newbyteorder(">" if is_big else "<"), count, offset)
        return words.reshape(module.rows, module.columns).astype(dtype, copy=False), module.bits_allocated
    if syntax not in DECODERS:
        values = decoded(module, lambda: _through_pydicom(dataset, frame_index))
        return values.astype(dtype, copy=False), module.bits_allocated
    frame = frame_of(dataset, module, frame_index)
    precision = check_frame(frame, syntax, module)
    values = decoded(module, lambda: DECODERS[syntax](frame, module))
    wide = dtype if dtype.itemsize >= values.dtype.itemsize else np.dtype(f"{dtype.kind}{values.dtype.itemsize}")
    return values.astype(wide, copy=False), precision


def masked(words: Array, module: ImageModule, precision: int) -> Array:
    """Clear the bits above those stored and read the sign from the highest that is: the same for every codec.

    A stream of fewer bits than BitsStored has its sign at its own highest bit (encoders that know no sign).
    """
    bits = min(module.bits_stored, precision)
    spare = 8 * words.dtype.itemsize - bits
    if spare == 0:
        return words
    if not module.signed:
        return words & words.dtype.type((1 << bits) - 1)
    return (words << spare) >> spare


def decoded(module: ImageModule, decode: Callable[[], Array]) -> Array:
    """Run a decoder; its picture must have the size that was announced.

    Decoders raise even BaseException (a panic of Rust code) and StopIteration (a lying offset table): everything but a
    wish to stop the program becomes a code.
    Raises: Rejected(decode), Rejected(memory).
    """
    try:
        values = decode()
    except Rejected:
        raise
    except MemoryError:
        raise Rejected(RejectCode.MEMORY) from None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001
        raise Rejected(RejectCode.DECODE) from None
    if values.shape != (module.rows, module.columns, 3)[: 2 + (module.samples == 3)]:
        raise Rejected(RejectCode.DECODE)
    return values


def _through_pydicom(dataset: Dataset, frame_index: int) -> Array:
    if isinstance(dataset.PixelData, memoryview):
        dataset["PixelData"].value = bytes(dataset.PixelData)
    syntax = dataset.file_meta.TransferSyntaxUID
    plugins = ("pyjpegls", jpeg_plugin.PLUGIN) if syntax in JPEG_LS else (PLUGIN_OF_SYNTAX.get(syntax, ""),)
    for plugin in plugins[:-1]:
        try:
            return pixel_array(dataset, index=frame_index, decoding_plugin=plugin)
        except Exception:  # noqa: BLE001, S112 (the next decoder may read it)
            continue
    return pixel_array(dataset, index=frame_index, decoding_plugin=plugins[-1])


def _rle(frame: bytes, module: ImageModule) -> Array:
    pixels = module.rows * module.columns
    content = rle.utils.decode_frame(frame, pixels, module.bits_allocated, "<")
    return np.frombuffer(content, f"<u{module.bits_allocated // 8}").reshape(module.rows, module.columns)


def _jpeg_ls(frame: bytes, module: ImageModule) -> Array:
    try:
        return np.asarray(imagecodecs.jpegls_decode(frame))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (each of the two libraries reads streams that the other does not)
        content, facts = jpeg_ls.decode_pixel_data(frame)
        words: Array = np.frombuffer(content, "u1" if facts["bits_per_sample"] <= 8 else "u2")
        return words.reshape(module.rows, module.columns)


DECODERS: dict[str, Callable[[bytes, ImageModule], Array]] = {
    uid.RLELossless: _rle,
    **dict.fromkeys(jpeg_plugin.JPEG, lambda frame, _: np.asarray(imagecodecs.jpeg8_decode(frame))),
    **dict.fromkeys(JPEG_LS, _jpeg_ls),
    **dict.fromkeys(JPEG_2000, lambda frame, _: np.asarray(imagecodecs.jpeg2k_decode(frame))),
}
