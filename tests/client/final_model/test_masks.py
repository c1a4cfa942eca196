"""Masks of new scans: whatever way a series lies, two readers find each voxel where the scan shows it."""

import csv
import gzip
import io
from io import BytesIO

import highdicom
import nibabel as nib
import numpy as np
import pytest
import torch
from pydicom import dcmread
from torch import nn

from client.dicom.masks import MaskForm, MaskWriter, new_folder
from client.final_model.predicting import predict
from common.plan.task import Image, Network, Task
from simulation.hospitals.dicom_enhanced import enhanced_file
from simulation.hospitals.dicom_writer import Form, Names, Template, uid_for

SLICES, ROWS, COLUMNS = 8, 20, 26
BRIGHT, DARK = 4000, 100
C, S = float(np.cos(0.3)), float(np.sin(0.3))
CASES = {  # orientation (row, column directions), step from slice to slice in mm
    "axial": ((1, 0, 0, 0, 1, 0), (0, 0, 1)),
    "axial, head first": ((1, 0, 0, 0, 1, 0), (0, 0, -1)),
    "prone": ((-1, 0, 0, 0, -1, 0), (0, 0, 1)),
    "sagittal": ((0, 1, 0, 0, 0, -1), (1, 0, 0)),
    "coronal, backwards": ((1, 0, 0, 0, 0, -1), (0, -1, 0)),
    "oblique": ((1, 0, 0, 0, C, S), (0, -S, C)),
    "doubly oblique, flipped": ((-C, S * C, S * S, 0, -S, C), tuple(np.cross((-C, S * C, S * S), (0, -S, C)))),
    "a tilted gantry": ((1, 0, 0, 0, 1, 0), (0, 1, 2)),
    "uneven gaps": ((1, 0, 0, 0, 1, 0), None),
    "rows finer than columns": ((1, 0, 0, 0, 1, 0), (0, 0, 1)),
}
UNEVEN = [0, 1, 2, 3, 5, 7, 9, 11]


class Threshold(nn.Module):
    """Calls every voxel brighter than one half a lesion."""

    def forward(self, images):
        return torch.cat([0.5 - images, images - 0.5], 1)


class Plan:
    """The parts of a plan that predictions need."""

    task = Task(kind="segmentation", classes=("background", "lesion"), modalities=("CT",), dimensions=3)
    image = Image(size_px=(40, 40, 40), spacing_mm=(1.0, 1.0, 1.0), intensity="ct_window", window_hu=(1024.0, 2048.0))
    network = Network(name="unet")


def drawn(seed: int) -> np.ndarray:
    """A body of which no turn and no flip is the same: (slices, rows, columns) bool."""
    rng = np.random.default_rng(seed)
    body = np.zeros((SLICES, ROWS, COLUMNS), bool)
    body[1:6, 3:11, 4:19] = True
    body[5:7, 8:15, 14:22] = True
    return body ^ (rng.random(body.shape) > 0.97)


def places_of(case: str) -> list[np.ndarray]:
    step = CASES[case][1]
    depths = UNEVEN if step is None else range(SLICES)
    return [np.array([-20.0, 7.0, 33.0]) + depth * np.array(step or (0, 0, 1), float) for depth in depths]


def write_series(folder, case: str, body: np.ndarray) -> list:
    """Write a series whose bright voxels are ``body``; return its headers in the order of the slices."""
    spacing = (1.0, 0.5, 1.0) if case == "rows finer than columns" else (1.0, 1.0, 1.0)
    template = Template(Form(modality="CT", rows=ROWS, columns=COLUMNS, intercept=-1024.0, spacing_mm=spacing))
    headers = []
    order = np.random.default_rng(1).permutation(SLICES)
    for place, position in enumerate(places_of(case)):
        names = Names(
            patient_id="CANARY-7", patient_name="Canary^Paula", study_uid=uid_for(case, "study"),
            series_uid=uid_for(case), instance_uid=uid_for(case, place), instance_number=int(order[place]) + 1,
        )  # fmt: skip
        dataset = dcmread(BytesIO(template.file(names, np.where(body[place], BRIGHT, DARK).astype(np.uint16))))
        dataset.ImagePositionPatient = [f"{mm:.8g}" for mm in position]
        dataset.ImageOrientationPatient = [f"{cosine:.9g}" for cosine in CASES[case][0]]
        dataset.save_as(folder / f"{order[place]:02d}.dcm")
        headers.append(dataset)
    return headers


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """All series in one folder: the folder, and case -> (headers, body)."""
    folder = tmp_path_factory.mktemp("masks")
    written = {}
    for number, case in enumerate(CASES):
        (folder / "scans" / f"{number:02d}").mkdir(parents=True)
        body = drawn(number)
        if case == "rows finer than columns":  # two rows make one of the study's
            body = np.repeat(body[:, ::2], 2, axis=1)
        written[case] = (write_series(folder / "scans" / f"{number:02d}", case, body), body)
    return folder, written


def predicted_as(form: MaskForm, series):
    """Predict on all series: case -> (headers, body, file, the table's row)."""
    folder, written = series
    new_folder(folder / form)

    def make(settings, secret):
        return MaskWriter(
            folder / form, folder / "scans", settings, form=form, secret=secret, study="trial", model="ab" * 32
        )

    found = predict(Threshold(), Plan, folder / "scans", temporary=folder, masks=make)
    table = list(csv.DictReader(io.StringIO(found.to_csv().partition("\n")[2])))
    return {case: (*written[case], folder / form / row["mask"], row) for case, row in zip(CASES, table, strict=True)}


@pytest.fixture(scope="module")
def predicted(series):
    return predicted_as(MaskForm.SEG, series)


@pytest.mark.parametrize("case", CASES)
def test_highdicom_finds_the_mask_on_the_images_it_was_made_of(case, predicted):
    headers, body, file, _ = predicted[case]
    seg = highdicom.seg.segread(file)
    uids = [header.SOPInstanceUID for header in headers]
    found = seg.get_pixels_by_source_instance(
        uids, segment_numbers=[1], combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert (found.astype(bool) == body).all()
    assert {uid for _, _, uid in seg.get_source_image_uids()} == set(uids)


@pytest.mark.parametrize("case", CASES)
def test_a_reader_of_its_own_finds_each_voxel_at_its_place_in_the_patient(case, predicted):
    """Pydicom and the formula of PS3.3 section C.7.6.2.1.1 alone: bits, frames, positions and directions."""
    headers, body, file, _ = predicted[case]
    seg = dcmread(file)
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frames = bits[: seg.NumberOfFrames * seg.Rows * seg.Columns].reshape(-1, seg.Rows, seg.Columns)
    shared = seg.SharedFunctionalGroupsSequence[0]
    found = set()
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        turned = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        spacing = shared.PixelMeasuresSequence[0].PixelSpacing
        found |= points(frame, groups.PlanePositionSequence[0].ImagePositionPatient, turned, spacing)
    assert found == points_of(headers, body)


def points_of(headers, body) -> set:
    """Where in the patient the bright voxels of a series lie, in hundredths of a millimetre."""
    found = set()
    for header, bright in zip(headers, body, strict=True):
        place, turned = header.ImagePositionPatient, header.ImageOrientationPatient
        found |= points(bright, place, turned, header.PixelSpacing)
    return found


def points(mask, position, orientation, spacing) -> set:
    rows, columns = np.nonzero(mask)
    along, down = np.array(orientation[:3], float), np.array(orientation[3:], float)
    at = np.array(position, float) + np.outer(columns * float(spacing[1]), along)
    at = at + np.outer(rows * float(spacing[0]), down)
    return {tuple(point) for point in (np.rint(at * 100) + 0.0).astype(int).tolist()}


@pytest.mark.slow
def test_the_nifti_mask_lies_at_the_same_place_in_the_patient(series):
    """Of series whose slices lie on one grid: a NIfTI file has no other."""
    for case, (headers, body, file, _) in predicted_as(MaskForm.NIFTI, series).items():
        if case in ("a tilted gantry", "uneven gaps"):
            continue
        image = nib.load(file)
        index = np.stack(np.nonzero(np.asarray(image.dataobj)))
        at = (image.affine @ np.vstack([index, np.ones(index.shape[1])]))[:3].T * (-1, -1, 1)
        found = {tuple(point) for point in (np.rint(at * 100) + 0.0).astype(int).tolist()}
        assert found == points_of(headers, body), case
        assert b"anary" not in gzip.decompress(file.read_bytes())


@pytest.mark.parametrize("case", CASES)
def test_the_table_tells_the_volume_that_the_mask_has(case, predicted):
    headers, body, file, row = predicted[case]
    normal = np.cross(CASES[case][0][:3], CASES[case][0][3:])
    depths = np.array(places_of(case)) @ normal
    gaps = np.abs(np.diff(depths))
    thickness = (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
    pixel = float(headers[0].PixelSpacing[0]) * float(headers[0].PixelSpacing[1])
    assert float(row["ml_lesion"]) == pytest.approx(
        float((body.sum((1, 2)) * thickness).sum()) * pixel / 1000, rel=1e-4
    )
    assert (row["answer"], row["mask"], row["files"]) == ("lesion", file.name, str(SLICES))


def test_a_seg_says_what_it_is_and_of_whom_and_stays_unreadable_for_others(predicted):
    headers, _, file, _ = predicted["oblique"]
    seg = dcmread(file)
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "PatientBirthDate"):
        assert seg[keyword].value == headers[0][keyword].value
    (segment,) = seg.SegmentSequence
    assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("lesion", "AUTOMATIC")
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lesion"
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == headers[0].SeriesInstanceUID
    assert seg.SeriesInstanceUID != headers[0].SeriesInstanceUID
    assert "Research use only" in seg.SeriesDescription
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert "canary" not in file.name.lower()


@pytest.mark.slow
def test_the_frames_of_one_file_get_their_own_mask(tmp_path):
    """An enhanced CT holds all slices, in an order of its own; the mask follows the file's frames."""
    body, order = drawn(3), [3, 0, 7, 1, 2, 6, 5, 4]
    form = Form(modality="CT", rows=ROWS, columns=COLUMNS, intercept=-1024.0)
    names = Names(
        patient_id="P", study_uid=uid_for("e", "study"), series_uid=uid_for("e"), instance_uid=uid_for("e", 1)
    )
    frames = [np.where(one, BRIGHT, DARK).astype(np.uint16) for one in body]
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans/e.dcm").write_bytes(enhanced_file(form, names, frames, order))
    new_folder(tmp_path / "masks")

    def make(settings, secret):
        return MaskWriter(
            tmp_path / "masks", tmp_path / "scans", settings, form=MaskForm.SEG, secret=secret, study="t", model="0"
        )

    found = predict(Threshold(), Plan, tmp_path / "scans", temporary=tmp_path, masks=make)
    assert [row.mask for row in found.rows] == ["series-0001.dcm"]
    seg = dcmread(tmp_path / "masks/series-0001.dcm")
    source = dcmread(tmp_path / "scans/e.dcm")
    bright = source.pixel_array > (BRIGHT + DARK) / 2
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frames_found = bits[: seg.NumberOfFrames * ROWS * COLUMNS].reshape(-1, ROWS, COLUMNS).astype(bool)
    for mask, groups in zip(frames_found, seg.PerFrameFunctionalGroupsSequence, strict=True):
        at = groups.PlanePositionSequence[0].ImagePositionPatient
        (number,) = [
            index for index, one in enumerate(source.PerFrameFunctionalGroupsSequence)
            if np.allclose(one.PlanePositionSequence[0].ImagePositionPatient, at)
        ]  # fmt: skip
        assert (mask == bright[number]).all()
    assert frames_found.sum() == bright.sum()
