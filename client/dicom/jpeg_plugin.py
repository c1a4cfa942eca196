"""pydicom decoding plugin on imagecodecs (BSD, libjpeg-turbo, CharLS) for lossless and 12-bit JPEG, and JPEG-LS.

pydicom has no decoder for the first without GDCM (ends the process on hostile input) or libjpeg (GPL, four times
slower); JPEG-LS streams that pyjpegls does not read are tried here.
Interface: pydicom 3, "Creating decoder plugins". Colour baseline JPEG stays with Pillow, which knows APP14.
"""

import imagecodecs
from pydicom import uid
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

PLUGIN = "imagecodecs"
JPEG = (uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
SYNTAXES = (*JPEG, uid.JPEGLSLossless, uid.JPEGLSNearLossless)
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("numpy", "imagecodecs>=2026.1"))


def is_available(syntax: str) -> bool:
    """Tell pydicom which transfer syntaxes this plugin decodes."""
    return syntax in DECODER_DEPENDENCIES


def _decode_frame(frame: bytes, runner: DecodeRunner) -> bytearray:
    """Decode one frame; sizes were held against the data set by ``codestream.check_frame`` before."""
    is_jpeg = runner.transfer_syntax in JPEG
    array = imagecodecs.jpeg8_decode(frame) if is_jpeg else imagecodecs.jpegls_decode(frame)
    runner.set_option("bits_allocated", array.dtype.itemsize * 8)
    if array.ndim == 3:
        runner.set_option("planar_configuration", 0)
        if is_jpeg and runner.photometric_interpretation.startswith("YBR"):  # the decoder has converted already
            runner.set_option("photometric_interpretation", "RGB")
    return bytearray(array.tobytes())


def register() -> None:
    """Make pydicom know the plugin; calling it twice changes nothing."""
    for syntax in SYNTAXES:
        decoder = get_decoder(syntax)
        if PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "_decode_frame"))
