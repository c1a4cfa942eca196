"""Expert segmentations: on the image's own grid, whatever the order or direction they were stored in; else refused."""

import gzip
from io import BytesIO

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.sr.codedict import codes

from client.dicom.cache import Cache
from client.dicom.ingest import ingest
from client.dicom.reject import RejectCode
from client.dicom.segmentation import nifti_volume, png_image
from simulation.hospitals.dicom_writer import uid_for

SIDE, DEPTH = 32, 8
CLASSES = ("background", "liver", "tumour")
LIVER, TUMOUR = np.s_[2:6, 4:20, 6:26], np.s_[3:5, 8:12, 10:14]


def truth() -> np.ndarray:
    """Class numbers (depth, height, width) on the grid of the phantom series below."""
    labels = np.zeros((DEPTH, SIDE, SIDE), np.uint8)
    labels[LIVER] = 1
    labels[TUMOUR] = 2
    return labels


@pytest.fixture(scope="module")
def series(scan) -> list[bytes]:
    """Eight slices, one millimetre apart, row and column spacing one millimetre."""
    return [scan(truth()[n].astype(np.uint16) * 500 + 1000, number=n, series="V") for n in range(DEPTH)]


@pytest.fixture
def study(tmp_path, series, settings_with, secret):
    """Ingest the series with whatever else a test puts beside it."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for number, content in enumerate(series):
        (scans / f"{number}.dcm").write_bytes(content)

    def go(*, dimensions=3, classes=CLASSES, labels=None, **files):
        for name, content in files.items():
            (scans / f"{name}.dcm").write_bytes(content)
        settings = settings_with(volume=dimensions == 3, kind="segmentation", classes=classes)
        report = ingest(scans, tmp_path / "cache", settings=settings, secret=secret, labels=labels)
        return report, Cache.open(tmp_path / "cache", secret)

    return go


def seg_of(series: list[bytes], labels: np.ndarray, names: tuple[str, ...] = CLASSES[1:]) -> bytes:
    """A DICOM SEG object as OHIF, Slicer or TotalSegmentator write it, by highdicom."""
    sources = [dcmread(BytesIO(content)) for content in series]
    present = np.stack([labels == number for number in range(1, len(names) + 1)], axis=-1)
    segmentation = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=present.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=name,
                segmented_property_category=codes.SCT.AnatomicalStructure,
                segmented_property_type=codes.SCT.Organ,
                algorithm_type="MANUAL",
            )
            for number, name in enumerate(names, start=1)
        ],
        series_instance_uid="2.25.77",
        series_number=2,
        sop_instance_uid="2.25.78",
        instance_number=1,
        manufacturer="Test",
        manufacturer_model_name="Test",
        software_versions="1",
        device_serial_number="1",
    )
    out = BytesIO()
    segmentation.save_as(out)
    return out.getvalue()


def test_a_dicom_seg_becomes_the_label_map_of_its_volume(study, series):
    labels = truth()
    report, cache = study(seg=seg_of(series, labels))
    (record,) = cache.records
    assert (report.accepted, report.rejected.total(), report.labelled_patients) == (DEPTH + 1, 0, 1)
    assert np.array_equal(cache.read_label_map(record.record_id), labels)
    values = cache.read_values(record.record_id)
    assert np.abs(values - (labels * 500.0 + 1000 - 1024)).max() < 0.1, "values and labels lie on one grid"


def test_a_seg_that_arrives_later_is_joined_to_its_volume(study, series):
    _, cache = study()
    assert not cache.records[0].has_label_map
    report, cache = study(seg=seg_of(series, truth()))
    assert report.files_read == 1
    assert cache.records[0].has_label_map
    assert study()[0].files_read == 0


REFUSED = {
    "a segment that is none of the study's classes": (
        lambda series: seg_of(series, truth(), ("liver", "spleen")),
        RejectCode.SEGMENTATION_CLASSES,
    ),
    "a segmentation of another patient": (
        lambda series: replaced(seg_of(series, truth()), PatientID="somebody"),
        RejectCode.SEGMENTATION_UNMATCHED,
    ),
    "a segmentation that names no images": (
        lambda series: replaced(seg_of(series, truth()), ReferencedSeriesSequence=[]),
        RejectCode.SEGMENTATION_REFERENCES,
    ),
    "a segmentation on another grid": (
        lambda series: shifted(seg_of(series, truth())),
        RejectCode.SEGMENTATION_GEOMETRY,
    ),
}


def replaced(content: bytes, **attributes: object) -> bytes:
    dataset = dcmread(BytesIO(content))
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def shifted(content: bytes) -> bytes:
    dataset = dcmread(BytesIO(content))
    for group in dataset.PerFrameFunctionalGroupsSequence:
        position = group.PlanePositionSequence[0].ImagePositionPatient
        group.PlanePositionSequence[0].ImagePositionPatient = [float(position[0]) + 0.4, *position[1:]]
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


@pytest.mark.parametrize("case", REFUSED)
def test_a_segmentation_is_refused_and_its_volume_stays_unlabelled(case, study, series):
    make, code = REFUSED[case]
    report, cache = study(seg=make(series))
    assert report.rejected == {code: 1}
    assert (report.accepted, cache.records[0].has_label_map) == (DEPTH, False)


def test_a_dicom_seg_labels_each_picture_of_a_2d_study(study, series):
    report, cache = study(dimensions=2, seg=seg_of(series, truth()))
    assert (report.records, report.rejected.total()) == (DEPTH, 0)
    maps = [cache.read_label_map(record.record_id) for record in cache.records if record.has_label_map]
    assert len(maps) == DEPTH
    expected = sorted(plane.tobytes() for plane in truth())
    assert sorted(plane.tobytes() for plane in maps) == expected


# NIfTI axes run (column, row, slice) towards right, front, head by the affine; ours towards head, back, left.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def nifti(labels: np.ndarray, affine: np.ndarray, dtype=np.uint8) -> bytes:
    return nib.Nifti1Image(labels.astype(dtype), affine).to_bytes()


def mask_file(tmp_path, content: bytes, patient: str = "P1"):
    (tmp_path / "masks").mkdir(exist_ok=True)
    (tmp_path / "masks" / "one.nii").write_bytes(content)
    table = tmp_path / "labels.csv"
    table.write_text(f"key_type,key,label\nPatientID,{patient},masks/one.nii\n")
    return table


STORED = {
    "as the scanner's axes": lambda labels: (labels.transpose(2, 1, 0), LPS_TO_RAS),
    "with flipped columns": lambda labels: (
        labels.transpose(2, 1, 0)[::-1],
        LPS_TO_RAS @ np.array([[-1, 0, 0, SIDE - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    ),
    "with slices first": lambda labels: (
        labels,
        LPS_TO_RAS @ np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]),
    ),
}


@pytest.mark.parametrize("stored", STORED)
def test_a_nifti_mask_is_turned_onto_the_volume_whatever_its_axes(stored, study, tmp_path):
    labels, affine = STORED[stored](truth())
    report, cache = study(labels=mask_file(tmp_path, nifti(labels, affine)))
    assert report.labelled_patients == 1
    assert np.array_equal(cache.read_label_map(cache.records[0].record_id), truth())


def test_a_nifti_mask_that_does_not_fit_leaves_the_volume_unlabelled(study, tmp_path):
    elsewhere = LPS_TO_RAS @ np.array([[1, 0, 0, 0.3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    report, cache = study(labels=mask_file(tmp_path, nifti(truth().transpose(2, 1, 0), elsewhere)))
    assert (report.accepted, report.labelled_patients) == (DEPTH, 0)
    assert report.masks_refused == {RejectCode.SEGMENTATION_GEOMETRY: 1}
    assert not cache.records[0].has_label_map


def png(labels: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(labels).save(out, "PNG")
    return out.getvalue()


def test_a_png_mask_labels_a_picture(study, tmp_path):
    (tmp_path / "masks").mkdir()
    rows = ["key_type,key,label"]
    for number in range(DEPTH):
        (tmp_path / "masks" / f"{number}.png").write_bytes(png(truth()[number]))
        rows.append(f"SOPInstanceUID,{uid_for('P1', 'V', number)},masks/{number}.png")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    report, cache = study(dimensions=2, labels=tmp_path / "labels.csv")
    assert (report.records, report.masks_refused.total()) == (DEPTH, 0)
    maps = [cache.read_label_map(record.record_id).tobytes() for record in cache.records]
    assert sorted(maps) == sorted(plane.tobytes() for plane in truth())


BAD_PNG = {
    "no PNG": (b"x" * 99, RejectCode.SEGMENTATION_UNREADABLE),
    "another size": (png(np.zeros((4, 5), np.uint8)), RejectCode.SEGMENTATION_GEOMETRY),
    "colours": (png(np.zeros((4, 4, 3), np.uint8)), RejectCode.SEGMENTATION_GEOMETRY),
    "a class too many": (png(np.full((4, 4), 3, np.uint8)), RejectCode.SEGMENTATION_CLASSES),
}


@pytest.mark.parametrize("case", BAD_PNG)
def test_a_bad_png_mask_has_its_code(case):
    content, code = BAD_PNG[case]
    with pytest.raises(Exception, match=code.value):
        png_image(content, CLASSES, (4, 4))


def test_white_means_the_class_when_there_is_one_class():
    white = png(np.array([[0, 255]], np.uint8))
    assert png_image(white, ("background", "lesion"), (1, 2)).tolist() == [[0, 1]]


BAD_MASKS = {
    "no NIfTI": (b"x" * 500, RejectCode.SEGMENTATION_UNREADABLE),
    "a compressed file that was cut": (
        gzip.compress(nifti(np.zeros((4, 4, 4)), np.eye(4)))[:-9],
        RejectCode.SEGMENTATION_UNREADABLE,
    ),
    "a class too many": (nifti(np.full((4, 4, 4), 3), np.eye(4)), RejectCode.SEGMENTATION_CLASSES),
    "half a class": (nifti(np.full((4, 4, 4), 0.5), np.eye(4), np.float32), RejectCode.SEGMENTATION_CLASSES),
    "four dimensions": (nifti(np.zeros((4, 4, 4, 2)), np.eye(4)), RejectCode.SEGMENTATION_GEOMETRY),
    "another size": (nifti(np.zeros((4, 4, 5)), np.eye(4)), RejectCode.SEGMENTATION_GEOMETRY),
    "sheared axes": (
        nifti(np.zeros((4, 4, 4)), np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])),
        RejectCode.SEGMENTATION_GEOMETRY,
    ),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_a_bad_nifti_mask_has_its_code(case):
    content, code = BAD_MASKS[case]
    geometry = hd.VolumeGeometry(np.eye(4), (4, 4, 4), "PATIENT")
    with pytest.raises(Exception, match=code.value):
        nifti_volume(content, CLASSES, geometry)


@pytest.mark.parametrize("name", ["NIfTI-2", "compressed in several members", "in the other byte order"])
def test_less_usual_forms_of_a_nifti_file_are_read(name):
    drawn = np.zeros((4, 4, 4), np.int16)
    drawn[1, 2, 3] = 2
    plain = nifti(drawn, LPS_TO_RAS, np.int16)
    swapped = nib.Nifti1Image(drawn.astype(">i2"), LPS_TO_RAS, nib.Nifti1Header(endianness=">"))
    forms = {
        "NIfTI-2": nib.Nifti2Image(drawn, LPS_TO_RAS).to_bytes(),
        "compressed in several members": gzip.compress(plain[:400]) + gzip.compress(plain[400:]),
        "in the other byte order": swapped.to_bytes(),
    }
    geometry = hd.VolumeGeometry(np.eye(4), (4, 4, 4), "PATIENT")
    assert np.array_equal(nifti_volume(forms[name], CLASSES, geometry), drawn)


FINE = np.array([[0.0123, 0.7031, 0, 12.34567], [-0.7031, 0.0123, 0, -8.76543], [0, 0, 1.2497, 3.1], [0, 0, 0, 1]])
DRAWN = np.zeros((8, 300, 280), np.uint8)
DRAWN[2:5, 40:90, 100:250] = 1
DRAWN[5, 200:299, 1:20] = 1
WRITTEN = {
    "rounded to three digits": (DRAWN, np.eye(4), 3),
    "with a fourth dimension of one": (DRAWN[..., None], np.eye(4), 9),
    "in black and white": (DRAWN * 255, np.eye(4), 9),
    "as numbers with a fraction": (DRAWN.astype(np.float32) * np.float32(0.99999), np.eye(4), 9),
    "cut to what was drawn": (
        DRAWN[2:7, 30:, :260],
        np.array([[1, 0, 0, 2], [0, 1, 0, 30], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
        3,
    ),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_a_mask_that_another_program_rounded_or_cut_is_taken_as_it_was_drawn(case):
    values, place, digits = WRITTEN[case]
    affine = np.array(FINE)[:, [2, 1, 0, 3]]  # slices first
    geometry = hd.VolumeGeometry(affine, DRAWN.shape, "PATIENT")
    content = nifti(values, np.round(LPS_TO_RAS @ affine @ place, digits), values.dtype)
    assert np.array_equal(nifti_volume(content, ("background", "lesion"), geometry), DRAWN)


@pytest.mark.parametrize("shift", [0.3, -0.45, 300.0])
def test_a_mask_beside_the_grid_or_beyond_the_image_is_never_moved_onto_it(shift):
    place = np.array([[1, 0, 0, 0], [0, 1, 0, shift], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    affine = np.array(FINE)[:, [2, 1, 0, 3]]
    geometry = hd.VolumeGeometry(affine, DRAWN.shape, "PATIENT")
    with pytest.raises(Exception, match=RejectCode.SEGMENTATION_GEOMETRY.value):
        nifti_volume(nifti(DRAWN, LPS_TO_RAS @ affine @ place), ("background", "lesion"), geometry)


def test_masks_of_the_last_table_stay_when_an_ingest_names_none_or_one_that_fits_nothing(study, tmp_path):
    table = mask_file(tmp_path, nifti(truth().transpose(2, 1, 0), LPS_TO_RAS))
    study(labels=table)
    (tmp_path / "other.csv").write_text("key_type,key,label\nPatientID,nobody,masks/one.nii\n")
    for labels in (None, tmp_path / "other.csv"):
        report, cache = study(labels=labels)
        assert (report.labelled_patients, report.masks_refused.total()) == (1, 0)
        assert np.array_equal(cache.read_label_map(cache.records[0].record_id), truth())
    table.write_text("key_type,key,label\nPatientID,P1,unlabelled\n")
    assert not study(labels=table)[1].records[0].has_label_map, "a table that fits and names no mask takes it away"
