"""Colour that contradicts itself: no such picture may come out in other colours than it has; each has its code."""

from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from client.dicom.instance import read_images, verdict
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import RejectCode

NAMES = Pseudonyms(b"k" * 32)
SIDE = 32
RGB = (np.add.outer(np.arange(SIDE) * 4, np.arange(SIDE) * 3)[..., None] * np.array([1, 0.5, 0.25])).astype(np.uint8)
GREY = np.ascontiguousarray(RGB[..., 0])
COLOUR = {"modalities": ("OP", "US"), "intensity": "luminance", "window_hu": (), "channels": 3}
RAMP = np.arange(256, dtype="<u2") * 257


def stream(dataset: Dataset, frames: list[bytes], syntax: str, photometric: str = "RGB") -> None:
    dataset.file_meta.TransferSyntaxUID, dataset.PhotometricInterpretation = syntax, photometric
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True


def jpeg(dataset: Dataset, *frames: np.ndarray) -> None:
    dataset.NumberOfFrames = len(frames)
    stream(dataset, [imagecodecs.jpeg8_encode(f, level=97) for f in frames], uid.JPEGBaseline8Bit, "YBR_FULL_422")


def jpeg_2000(dataset: Dataset, frame: np.ndarray) -> None:
    content = imagecodecs.jpeg2k_encode(frame, level=0, reversible=True, codecformat="J2K", mct=False)
    stream(dataset, [content], uid.JPEG2000Lossless)


def put(**attributes):
    def edit(dataset: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return edit


def without_planes(dataset: Dataset) -> None:
    del dataset.PlanarConfiguration


def half_chroma_of_odd_width(dataset: Dataset) -> None:
    dataset.Columns, dataset.PhotometricInterpretation = SIDE + 1, "YBR_FULL_422"
    dataset.PixelData = bytes(SIDE * (SIDE + 1) * 2)


def sixteen_bits(dataset: Dataset) -> None:
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15


def palette(*tables: tuple[list[int], bytes] | None):
    def edit(dataset: Dataset) -> None:
        without_planes(dataset)
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "PALETTE COLOR"
        dataset.PixelData = GREY.tobytes()
        for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
            if table:
                dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", table[0])
                dataset.add_new(f"{name}PaletteColorLookupTableData", "OW", table[1])

    return edit


WHOLE = ([256, 0, 16], RAMP.tobytes())
REFUSED = {
    "an alpha channel": (
        put(SamplesPerPixel=4, PhotometricInterpretation="ARGB", PixelData=bytes(4 * SIDE**2)), RejectCode.PIXEL_MODULE,
    ),
    "two samples": (put(SamplesPerPixel=2, PixelData=bytes(2 * SIDE**2)), RejectCode.PIXEL_MODULE),
    "planes or pixels, not said": (without_planes, RejectCode.MISSING_ATTRIBUTE),
    "a third order of planes": (put(PlanarConfiguration=7), RejectCode.PIXEL_MODULE),
    "half the chroma of an odd width": (half_chroma_of_odd_width, RejectCode.PIXEL_MODULE),
    "half the chroma in planes": (
        put(PhotometricInterpretation="YBR_FULL_422", PlanarConfiguration=1, PixelData=bytes(2 * SIDE**2)),
        RejectCode.PIXEL_MODULE,
    ),
    "a retired colour space": (put(PhotometricInterpretation="YBR_PARTIAL_422"), RejectCode.PIXEL_MODULE),
    "CMYK": (put(PhotometricInterpretation="CMYK"), RejectCode.PIXEL_MODULE),
    "a transformation of JPEG 2000 without it": (put(PhotometricInterpretation="YBR_RCT"), RejectCode.PIXEL_MODULE),
    "signed colours": (put(PixelRepresentation=1), RejectCode.PIXEL_MODULE),
    "a grey stream": (lambda d: jpeg(d, GREY), RejectCode.CODESTREAM_SIZE),
    "a grey frame in the middle": (lambda d: jpeg(d, RGB, GREY, RGB), RejectCode.CODESTREAM_SIZE),
    "a stream with alpha": (lambda d: jpeg_2000(d, np.dstack([RGB, GREY])), RejectCode.CODESTREAM_SIZE),
    "a stream of more bits": (lambda d: jpeg_2000(d, RGB.astype(np.uint16) * 257), RejectCode.CODESTREAM_SIZE),
    "a palette without green": (palette(WHOLE, None, WHOLE), RejectCode.PALETTE),
    "a palette of nothing": (palette(*[([256, 0, 16], b"")] * 3), RejectCode.PALETTE),
}  # fmt: skip


@pytest.fixture(scope="module")
def levels_of(scan, settings_with):
    def read(edit, modality="OP"):
        dataset = dcmread(BytesIO(scan(RGB, {"modality": modality, "colours": 3, "bits_stored": 8})))
        edit(dataset)
        out, found = BytesIO(), []
        dataset.save_as(out, enforce_file_format=False)
        code = verdict(lambda: found.extend(read_images(out.getvalue(), settings_with(**COLOUR), NAMES)))
        return code, found[0][1] / 65535 * 255 if found else None

    return read


@pytest.mark.parametrize(("edit", "code"), REFUSED.values(), ids=REFUSED)
def test_what_contradicts_itself_has_its_code(edit, code, levels_of):
    assert levels_of(edit)[0] is code


def with_header_of_16_bits(dataset: Dataset) -> None:
    sixteen_bits(dataset)
    jpeg_2000(dataset, RGB)


def without_planes_in_a_stream(dataset: Dataset) -> None:
    without_planes(dataset)
    jpeg_2000(dataset, RGB)


TAKEN = {
    "a stream of 8 bits under a header of 16": (with_header_of_16_bits, RGB),
    "a stream that knows its own order": (without_planes_in_a_stream, RGB),
    "colour in the middle of grey": (lambda d: jpeg(d, GREY, RGB, GREY), RGB),
    "a palette of three widths and beginnings": (
        palette(
            WHOLE, ([128, 64, 16], RAMP[64:192].tobytes()), ([256, 0, 8], np.arange(256, dtype=np.uint8).tobytes())
        ),
        np.dstack([GREY, np.clip(GREY, 64, 191), GREY]),
    ),
}


@pytest.mark.parametrize(("edit", "expected"), TAKEN.values(), ids=TAKEN)
def test_what_is_clear_has_its_colours(edit, expected, levels_of):
    code, levels = levels_of(edit)
    assert code is None
    assert np.abs(levels - np.moveaxis(expected.astype(float), 2, 0)).max() < 9


def test_ultrasound_whose_regions_lie_elsewhere_does_not_say_where_its_picture_is(levels_of):
    def elsewhere(dataset: Dataset) -> None:
        dataset.SequenceOfUltrasoundRegions[0].RegionLocationMinX0 = 5000

    assert levels_of(elsewhere, "US")[0] is RejectCode.NO_ULTRASOUND_REGION
    assert levels_of(lambda _: None, "US")[0] is None
