"""What a stored value means: rescaled, never inverted, padding and text beside the picture taken out."""

from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from client.dicom.decode import check_stream
from client.dicom.header import read_header
from client.dicom.image_module import check_image_module
from client.dicom.instance import read_images, verdict
from client.dicom.intensity import to_levels, window_of
from client.dicom.pixels import read_frame
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import RejectCode

NAMES = Pseudonyms(b"k" * 32)
RAMP = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)


def values_of(content: bytes, modality: str = "CT", frame_index: int = 0) -> np.ndarray:
    dataset = read_header(content)
    module = check_image_module(dataset, modality)
    check_stream(dataset, module, [frame_index])
    return read_frame(dataset, module, frame_index).values


def code_of(content: bytes, settings) -> RejectCode | None:
    return verdict(lambda: list(read_images(content, settings, NAMES)) and None)


def real_file(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom-data, which holds {name}, is not installed")
    return Path(path).read_bytes()


def test_hounsfield_units_are_stored_value_times_slope_plus_intercept(scan):
    content = scan(RAMP, form={"slope": 2.0, "intercept": -1024.0})
    assert np.array_equal(values_of(content), RAMP * 2.0 - 1024)


def test_inverted_x_ray_is_turned_about_a_pivot_of_bits_stored_and_not_of_its_own_maximum(scan):
    plain = {"modality": "CR", "bits_stored": 12}
    dark, light = RAMP, RAMP // 2
    for frame in (dark, light):
        content = scan(frame, form={**plain, "intercept": 0.0, "monochrome1": True})
        assert np.array_equal(values_of(content, "CR"), 4095.0 - frame)


def test_inversion_agrees_with_highdicom_on_a_real_radiograph():
    content = real_file("RG1_UNCR.dcm")
    ours = values_of(content, "CR")
    image = highdicom.Image.from_dataset(dcmread(BytesIO(content)))
    theirs = image.get_frame(1, apply_presentation_lut=True, dtype=np.float64)
    assert np.array_equal(ours, theirs.astype(np.float32))


def test_padding_outside_the_scanners_circle_takes_the_lowest_value_of_the_picture(scan, changed):
    frame = RAMP + 100
    frame[:4] = 0
    content = changed(scan(frame), PixelPaddingValue=0)
    values = values_of(content)
    assert (values[:4] == values[4:].min()).all()
    assert values.min() == int(frame[4:].min()) - 1024


def test_a_padding_value_of_the_wrong_sign_is_understood(scan, changed):
    frame = RAMP.astype(np.int16)
    frame[:4] = -2000
    content = scan(frame.view(np.uint16), form={"bits_stored": 16})
    values = values_of(changed(content, PixelRepresentation=1, PixelPaddingValue=63536))
    assert values.min() == RAMP[4:].min() - 1024.0


def test_enhanced_ct_is_rescaled_by_its_functional_groups_as_highdicom_does_it():
    content = real_file("eCT_Supplemental.dcm")
    volume = highdicom.Image.from_dataset(dcmread(BytesIO(content))).get_volume(dtype=np.float64).array
    ours = np.stack([values_of(content, frame_index=index) for index in (0, 1)])
    assert ours.min() < -900, "HU, not stored values"
    assert sorted(frame.sum() for frame in ours) == sorted(frame.astype(np.float32).sum() for frame in volume)


def test_a_palette_picture_is_looked_up_before_it_is_made_grey():
    values = values_of(real_file("examples_palette.dcm"), "US")
    assert 0 <= values.min() < values.max() <= 255
    assert len(np.unique(values)) > 50


def test_what_stands_beside_the_ultrasound_picture_is_blanked(scan, changed):
    content = scan(RAMP + 50, form={"modality": "CR"})
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 8, 8
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 23, 23
    content = changed(content, SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1", SequenceOfUltrasoundRegions=[region])
    values = values_of(content, "US")
    assert (values[:8] == values[8:24, 8:24].min()).all()
    assert len(np.unique(values[8:24, 8:24])) == 256


REFUSED = {
    "slope is not a number": ({"RescaleSlope": "nan"}, RejectCode.BAD_ATTRIBUTE),
    "slope is zero": ({"RescaleSlope": "0"}, RejectCode.RESCALE),
    "intercept is infinite": ({"RescaleIntercept": "inf"}, RejectCode.BAD_ATTRIBUTE),
    "no patient": ({"PatientID": ""}, RejectCode.NO_PATIENT_ID),
    "only spaces for a patient": ({"PatientID": "  "}, RejectCode.NO_PATIENT_ID),
    "no frames": ({"NumberOfFrames": "0"}, RejectCode.FRAMES),
    "a screen shot": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, RejectCode.SECONDARY_CAPTURE),
    "another modality than the study's": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, RejectCode.MODALITY),
    "a localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, RejectCode.LOCALIZER),
    "text burned in": ({"BurnedInAnnotation": "YES"}, RejectCode.BURNED_IN),
    "rows without columns to fill": ({"Rows": 64}, RejectCode.PIXEL_LENGTH),
    "sides nobody scans": ({"Rows": 65535, "Columns": 65535}, RejectCode.DIMENSIONS),
    "no pixels": ({"PixelData": None}, RejectCode.NO_PIXELS),
    "study without identifier": ({"StudyInstanceUID": None}, RejectCode.BAD_UID),
    "identifier with a path in it": ({"SOPInstanceUID": "../1.2"}, RejectCode.BAD_UID),
    "more bits stored than allocated": ({"BitsStored": 20, "HighBit": 19}, RejectCode.PIXEL_MODULE),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_a_file_is_refused_with_its_code(case, scan, changed, settings_with):
    attributes, code = REFUSED[case]
    assert code_of(scan(), settings_with()) is None, "the file was good before"
    assert code_of(changed(scan(), **attributes), settings_with()) is code


@pytest.mark.parametrize(
    "syntax", ["implicit", "big_endian", "deflated", "rle", "jpeg_ls", "jpeg_lossless", "jpeg_2000"]
)
def test_lossless_syntaxes_give_identical_values(syntax, scan):
    assert np.array_equal(values_of(scan(RAMP, form={"syntax": syntax})), values_of(scan(RAMP)))


def test_a_ct_window_maps_hounsfield_units_the_same_in_every_image(settings_with):
    settings = settings_with(window_hu=(0.0, 2000.0))
    values = np.array([[-5000.0, -1000.0, 0.0, 1000.0, 5000.0]], np.float32)
    low, high = window_of(values, None, (0.0, 1.0), settings)
    assert to_levels(values, low, high).tolist() == [[0, 0, 32768, 65535, 65535]]


def test_percentiles_look_at_valid_pixels_only(settings_with):
    settings = settings_with(intensity="percentiles", window_hu=(), percentiles=(0.0, 100.0))
    values = np.array([[0.0, 50.0, 100.0]], np.float32)
    valid = np.array([[False, True, True]])
    assert window_of(values, valid, (0.0, 1.0), settings) == (50.0, 100.0)


def test_an_image_without_contrast_becomes_black_instead_of_dividing_by_zero():
    assert not to_levels(np.full((2, 2), 7.0, np.float32), 7.0, 7.0).any()
