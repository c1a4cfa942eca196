"""High-throughput JPEG 2000: what one library (OpenJPH) wrote another (OpenJPEG) reads, to the bit."""

from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL

from client.dicom.decode import check_stream
from client.dicom.header import read_header
from client.dicom.image_module import check_image_module
from client.dicom.pixels import read_frame
from client.dicom.reject import RejectCode, Rejected

ROWS, COLUMNS = np.mgrid[:32, :32]
PICTURE = ROWS * 60 + COLUMNS * 37
WORDS = {
    "12 bits": (PICTURE.astype(np.uint16), 12, 0),
    "16 bits": ((PICTURE * 20).astype(np.uint16), 16, 0),
    "with a sign": ((PICTURE - 1500).astype(np.int16), 16, 1),
    "8 bits": ((PICTURE % 251).astype(np.uint8), 8, 0),
}


def values_of(content: bytes) -> np.ndarray:
    dataset = read_header(content)
    module = check_image_module(dataset, "CT")
    check_stream(dataset, module, [0])
    return read_frame(dataset, module, 0).values


@pytest.fixture
def stored(scan):
    """A CT file that holds this stream."""

    def make(words, bits, sign, syntax, *, keep=1.0) -> bytes:
        dataset = dcmread(BytesIO(scan()))
        stream = imagecodecs.htj2k_encode(words)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = words.dtype.itemsize * 8, bits, bits - 1
        dataset.PixelRepresentation = sign
        dataset.PixelData = encapsulate([stream[: int(len(stream) * keep)]])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
        out = BytesIO()
        dataset.save_as(out)
        return out.getvalue()

    return make


@pytest.mark.parametrize("case", WORDS)
@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
def test_a_stream_is_read_to_the_bit(case, syntax, stored):
    words, bits, sign = WORDS[case]
    assert np.array_equal(values_of(stored(words, bits, sign, syntax)), words.astype(np.float32) - 1024)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_stream_that_was_cut_is_refused(keep, stored):
    with pytest.raises(Rejected) as refused:
        values_of(stored(*WORDS["12 bits"], HTJ2KLossless, keep=keep))
    assert refused.value.code in (RejectCode.DECODE, RejectCode.CODESTREAM)


def test_a_stream_of_another_size_is_refused_before_it_is_decoded(stored):
    words, bits, sign = WORDS["12 bits"]
    with pytest.raises(Rejected, match=RejectCode.CODESTREAM_SIZE.value):
        values_of(stored(np.repeat(words, 2, axis=1), bits, sign, HTJ2KLossless))
