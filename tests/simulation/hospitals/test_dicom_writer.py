import io
import struct
import warnings
import zlib

import highdicom as hd
import imagecodecs
import numpy as np
import pytest
from pydicom import config, dcmread
from pydicom.encaps import generate_frames

from simulation.drawing.scanners import REFERENCE, SCANNERS
from simulation.hospitals.dicom_syntaxes import SYNTAXES
from simulation.hospitals.dicom_writer import SOP_CLASSES, Form, Names, Template, uid_for
from simulation.hospitals.hospital import Holdings, write_hospital
from simulation.hospitals.phantoms import render_segmented

FRAME = np.random.default_rng(0).integers(0, 4096, (24, 20)).astype(np.uint16)
NAMES = Names(
    "P-007", uid_for("study"), uid_for("series"), uid_for("instance"), "Phantom^One", "A1", position_mm=(-1.5, 2, 30)
)


def written(form: Form, names: Names = NAMES, frame=FRAME) -> bytes:
    return Template(form).file(names, frame)


def read_strictly(content: bytes):
    """Every value is converted, and a value that breaks its VR is an error."""
    former = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.RAISE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ds = dcmread(io.BytesIO(content))
            str(ds)
            return ds
    finally:
        config.settings.reading_validation_mode = former


def stored_values(ds) -> np.ndarray:
    if ds.file_meta.TransferSyntaxUID == SYNTAXES["jpeg_lossless"].uid:  # pydicom alone has no free decoder for it
        (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
        return imagecodecs.jpeg8_decode(frame)
    return ds.pixel_array


@pytest.mark.parametrize("modality", SOP_CLASSES)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_syntax_and_modality_gives_a_strictly_valid_file_with_the_very_pixels(syntax, modality):
    ds = read_strictly(written(Form(modality, 24, 20, syntax=syntax)))
    assert ds.file_meta.TransferSyntaxUID == SYNTAXES[syntax].uid
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == SOP_CLASSES[modality]
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID == NAMES.instance_uid
    assert np.array_equal(stored_values(ds), FRAME)


def test_the_file_meta_states_its_own_length():
    content = written(Form("CT", 24, 20))
    assert content[128:132] == b"DICM"
    (length,) = struct.unpack_from("<I", content, 140)
    assert content[144 + length : 148 + length] == b"\x08\x00\x05\x00", "the data set begins where the meta ends"


def test_a_deflated_file_is_one_raw_deflate_stream():
    content = written(Form("CT", 24, 20, syntax="deflated"))
    (length,) = struct.unpack_from("<I", content, 140)
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = stream.decompress(content[144 + length :])
    assert stream.eof
    assert plain.endswith(FRAME.tobytes())


def test_what_differs_between_images_lands_in_its_attribute():
    ds = read_strictly(written(Form("CT", 24, 20, intercept=-1024, spacing_mm=(2.5, 0.7, 0.8), maker="Acme")))
    assert (ds.PatientID, str(ds.PatientName), ds.AccessionNumber) == ("P-007", "Phantom^One", "A1")
    assert (ds.StudyInstanceUID, ds.SeriesInstanceUID) == (NAMES.study_uid, NAMES.series_uid)
    assert [float(x) for x in ds.ImagePositionPatient] == [-1.5, 2, 30]
    assert ([float(x) for x in ds.PixelSpacing], float(ds.SliceThickness)) == ([0.7, 0.8], 2.5)
    assert (ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType) == (-1024, 1, "HU")


def test_a_uid_is_never_changed_whatever_digits_it_has():
    numbers = ("979797", "10101010", "2222", "111111")
    tricky = [f"2.25.{(number * 20)[:39]}" for number in numbers]
    for uid in tricky:
        names = Names("979797", uid, uid[:-1] + "1", uid[:-1] + "2", study_date="20240229", instance_number=12)
        ds = read_strictly(written(Form("CT", 24, 20), names))
        assert (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID) == (uid, uid[:-1] + "1", uid[:-1] + "2")
        assert (ds.PatientID, ds.StudyDate, ds.InstanceNumber) == ("979797", "20240229", 12)


REFUSED = {
    "a frame of another size": (NAMES, FRAME[1:]),
    "a UID of another length": (Names("P", "1.2.3", NAMES.series_uid, NAMES.instance_uid), FRAME),
    "a patient id of 17 letters": (Names("P" * 17, NAMES.study_uid, NAMES.series_uid, NAMES.instance_uid), FRAME),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_fit_the_template_is_refused(why):
    names, frame = REFUSED[why]
    with pytest.raises(ValueError, match=r"fit|pixels"):
        written(Form("CT", 24, 20), names, frame)


def test_uids_are_valid_distinct_and_derived():
    uids = {uid_for("a", number) for number in range(2000)}
    assert len(uids) == 2000
    assert {len(uid) for uid in uids} == {44}
    assert uid_for("a", "b") == uid_for("a", "b") != uid_for("ab")


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """Two CT volumes of one hospital, the second without a lesion, with their segmentations."""
    images, found = render_segmented("ct", [1, 0], np.random.default_rng(1), (8, 32, 32))
    labelled = np.ones(2, bool)
    holdings = Holdings(
        images, np.array([1, 0]), np.arange(2), labelled, ("background", "nodule"), "CT", found, (5, 2, 1)
    )
    folder = tmp_path_factory.mktemp("site") / "hospital-1"
    write_hospital(folder, holdings, SCANNERS[1], seed=0)
    return folder, images, found


def test_a_volume_is_a_regular_series_that_highdicom_stacks_in_order(segmented):
    folder, images, _ = segmented
    for study in (folder / "scans").iterdir():
        slices = [dcmread(path) for path in study.glob("*-0*.dcm")]
        volume = hd.get_volume_from_series(slices)
        by_height = volume.array if volume.affine[2, 0] > 0 else volume.array[::-1]
        assert any(np.abs(by_height - (image * 2048 - 1024)).max() <= 0.51 for image in images)
        assert np.allclose(np.abs(volume.spacing), (5, 2, 1))


def test_a_segmentation_covers_the_lesion_of_its_series_and_may_be_empty(segmented):
    folder, _, found = segmented
    seen = []
    for path in (folder / "scans").rglob("*-seg.dcm"):
        seg = hd.seg.segread(path)
        slices = sorted(
            (dcmread(p, stop_before_pixels=True) for p in path.parent.glob("*-0*.dcm")),
            key=lambda ds: float(ds.ImagePositionPatient[2]),
        )
        pixels = seg.get_pixels_by_source_instance(
            [ds.SOPInstanceUID for ds in slices], combine_segments=True, assert_missing_frames_are_empty=True
        )
        assert seg.get_segment_description(1).segment_label == "nodule"
        seen.append(int(pixels.sum()))
        assert any(np.array_equal(pixels, one) for one in found)
    assert min(seen) == 0 < max(seen)


def test_monochrome1_stores_the_negative_of_the_same_picture(tmp_path):
    images = np.linspace(0, 1, 2 * 16 * 16, dtype=np.float32).reshape(2, 16, 16)
    holdings = Holdings(images, np.zeros(2, int), np.arange(2), np.zeros(2, bool), ("a", "b"), "DX")
    plain = write_hospital(tmp_path / "plain", holdings, REFERENCE, 0)
    negative = write_hospital(tmp_path / "negative", holdings, SCANNERS[2], 0)
    assert (plain.monochrome1, negative.monochrome1) == (False, True)
    first, second = (sorted_values(tmp_path / name) for name in ("plain", "negative"))
    assert np.array_equal(first, np.sort(4095 - second))


def sorted_values(folder) -> np.ndarray:
    return np.sort(np.concatenate([dcmread(path).pixel_array.ravel() for path in folder.rglob("*.dcm")]))
