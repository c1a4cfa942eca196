"""Which slices form a volume: the gatekeeper's verdicts, and the two real lung series against an independent reader."""

import csv
import math
import random
from dataclasses import replace
from io import BytesIO

import highdicom
import numpy as np
import pytest
from pydicom import dcmread

from client.dicom.parts import chosen_part
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.reject import RejectCode, Rejected
from client.dicom.series import ordered
from client.dicom.slices import Slice
from client.dicom.volume import SeriesFiles, build_volume
from common.plan.task import Part

NAMES = Pseudonyms(b"k" * 32)


def stack_of(count: int = 12, spacing_mm: float = 2.5) -> list[Slice]:
    return [
        Slice(
            file_index=index,
            frame_index=0,
            instance_key=f"{index:032x}",
            rows=16,
            columns=16,
            position=(-100.0, -120.0, 40.0 + spacing_mm * index),
            orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            spacing_mm=(0.7, 0.7),
            frame_of_reference="1.2",
        )
        for index in range(count)
    ]


def moved(index: int, **changes):
    def change(stack: list[Slice]) -> list[Slice]:
        stack[index] = replace(stack[index], **changes)
        return stack

    return change


def slanted(stack: list[Slice]) -> list[Slice]:
    return [replace(s, position=(s.position[0], s.position[1] + 2.6 * i, s.position[2])) for i, s in enumerate(stack)]


DEFECTS = {
    "a slice in the middle is missing": (lambda stack: stack[:5] + stack[6:], RejectCode.SERIES_MISSING_SLICE),
    "two neighbouring slices are missing": (lambda stack: stack[:5] + stack[7:], RejectCode.SERIES_MISSING_SLICE),
    "two slices lie at one place": (
        moved(3, position=(-100.0, -120.0, 50.0)),
        RejectCode.SERIES_DUPLICATE_POSITION,
    ),
    "the table moves further sideways than along": (slanted, RejectCode.SERIES_TILTED),
    "one slice lies aside": (moved(4, position=(-95.0, -120.0, 50.0)), RejectCode.SERIES_GEOMETRY),
    "one slice lies off its place": (moved(4, position=(-100.0, -120.0, 50.9)), RejectCode.SERIES_GEOMETRY),
    "there is only one slice": (lambda stack: stack[:1], RejectCode.SERIES_TOO_SHORT),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_series_that_is_no_volume_is_refused_with_its_code(defect):
    change, code = DEFECTS[defect]
    with pytest.raises(Rejected) as refused:
        ordered(change(stack_of()))
    assert refused.value.code is code


FOREIGN = {
    "another orientation": {"orientation": (1.0, 0.0, 0.0, 0.0, 0.0, 1.0)},
    "another pixel spacing": {"spacing_mm": (0.8, 0.8)},
    "another size": {"rows": 32},
    "another frame of reference": {"frame_of_reference": "1.3"},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_one_foreign_image_is_left_out_and_the_rest_judged_without_it(kind):
    stack = moved(11, **FOREIGN[kind])(stack_of())
    chosen = chosen_part(stack, Part.FIRST)
    assert (len(chosen.slices), chosen.foreign, chosen.others) == (11, [stack[11]], [])
    with pytest.raises(Rejected) as refused:
        ordered(chosen_part(moved(4, **FOREIGN[kind])(stack_of()), Part.FIRST).slices)
    assert refused.value.code is RejectCode.SERIES_MISSING_SLICE, "its place in the middle stays empty"


def test_a_series_without_a_majority_is_refused():
    turned = [(1.0, 0.0, 0.0, 0.0, math.cos(i), math.sin(i)) for i in range(12)]
    stack = [replace(slice_, orientation=turn) for slice_, turn in zip(stack_of(), turned, strict=True)]
    with pytest.raises(Rejected) as refused:
        chosen_part(stack, Part.FIRST)
    assert refused.value.code is RejectCode.SERIES_MIXED


def test_a_slice_that_names_no_frame_of_reference_is_not_foreign():
    assert chosen_part(moved(4, frame_of_reference="")(stack_of()), Part.FIRST).foreign == []


def test_slices_are_ordered_by_position_whatever_the_order_of_the_files():
    stack = stack_of()
    shuffled = random.Random(3).sample(stack, len(stack))
    in_order, geometry = ordered(shuffled)
    assert [s.position for s in in_order] == [s.position for s in stack]
    assert geometry.spacing_mm == pytest.approx((2.5, 0.7, 0.7))


def test_a_series_scanned_from_head_to_feet_gives_the_same_grid():
    upwards = ordered(stack_of())[1]
    downwards = ordered(list(reversed(stack_of())))[1]
    assert np.array_equal(upwards.affine, downwards.affine)


REAL = {"series_nlst_ct": 143, "series_acrin_nsclc_ct": 135}


@pytest.mark.parametrize("folder", REAL)
def test_a_real_lung_series_becomes_one_volume_in_the_right_order_with_the_right_hounsfield_units(
    folder, shared_data, settings_with
):
    """Oracle: highdicom's own volume of the same files, and the value ranges of the manifest."""
    paths = random.Random(7).sample(sorted((shared_data / "dicom" / folder).glob("*.dcm")), REAL[folder])
    datasets = [dcmread(path) for path in paths]
    theirs = highdicom.get_volume_from_series(datasets, dtype=np.float32).to_patient_orientation("HPL")
    mm = [float(value) for value in theirs.spacing]
    settings = settings_with(
        volume=True, size_px=theirs.shape, spacing_mm=mm, window_hu=(0.0, 10000.0), classes=("a", "b")
    )
    files = SeriesFiles(len(paths), lambda index: paths[index].read_bytes(), settings, NAMES)
    built = build_volume(files, settings, lambda: None)
    assert (built.facts.slices, built.levels.shape) == (REAL[folder], theirs.shape)
    ours = built.levels.astype(np.float32) * np.float32(10000 / 65535) - 5000
    low, high = manifest_range(shared_data, folder)
    padding = theirs.array == datasets[0].get("PixelPaddingValue", np.nan)  # we give it the lowest value instead
    assert padding.mean() < 0.3
    assert np.abs(ours - theirs.array)[~padding].max() < 0.1, "HU of a voxel"
    assert (round(float(ours.min())), round(float(ours.max()))) == (low, high)


def manifest_range(shared_data, folder: str) -> tuple[int, int]:
    """Smallest and largest value in HU of a series, by the manifest (its values are stored ones; rescale is 1, 0)."""
    with (shared_data / "dicom" / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["file"].startswith(folder + "/")]
    assert len(rows) == REAL[folder]
    for row in rows:
        header = dcmread(shared_data / "dicom" / row["file"], stop_before_pixels=True)
        assert (header.RescaleSlope, header.RescaleIntercept) == (1, 0)
    return min(int(row["min"]) for row in rows), max(int(row["max"]) for row in rows)


def test_one_enhanced_multi_frame_file_gives_the_volume_of_the_single_slices(scan, settings_with):
    """Highdicom converts the slices; frames lie in another order than positions, rescale in functional groups."""
    singles = [scan(number=number, form={"slope": 2.0}) for number in range(6)]
    shuffled = [dcmread(BytesIO(singles[index])) for index in (3, 0, 5, 1, 4, 2)]
    for dataset in shuffled:
        dataset.PositionReferenceIndicator = ""
    enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        legacy_datasets=shuffled,
        series_instance_uid=shuffled[0].SeriesInstanceUID,
        series_number=1,
        sop_instance_uid="2.25.9",
        instance_number=1,
    )
    out = BytesIO()
    enhanced.save_as(out)
    settings = settings_with(volume=True, size_px=(8, 32, 32))
    volumes = [
        build_volume(SeriesFiles(len(files), files.__getitem__, settings, NAMES), settings, lambda: None)
        for files in (singles, [out.getvalue()])
    ]
    assert len(np.unique(volumes[0].levels)) > 100
    assert np.array_equal(volumes[0].levels, volumes[1].levels)
    assert volumes[1].facts.slices == 6


ORIENTATIONS = {
    "axial": ((1, 0, 0, 0, 1, 0), (0, 0, 1)),
    "axial from the feet's side": ((-1, 0, 0, 0, 1, 0), (0, 0, 1)),
    "coronal": ((1, 0, 0, 0, 0, -1), (0, 1, 0)),
    "sagittal": ((0, 1, 0, 0, 0, -1), (1, 0, 0)),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_direction_of_scanning_gives_the_same_axes(name, scan, changed, settings_with):
    """One body, a different brightness in each of eight octants, scanned in four ways: the cache holds one picture."""
    orientation, normal = ORIENTATIONS[name]
    along_row, down_column = np.array(orientation[:3]), np.array(orientation[3:])
    files = []
    for number in range(32):
        rows, columns = np.mgrid[:32, :32]
        centre = np.array(normal) * (number - 15.5)
        points = centre + (columns[..., None] - 15.5) * along_row + (rows[..., None] - 15.5) * down_column
        octant = (points > 0) @ np.array([1, 2, 4])
        first = centre - 15.5 * along_row - 15.5 * down_column
        content = scan((octant * 100).astype(np.uint16), number=number)
        files.append(
            changed(content, ImageOrientationPatient=list(orientation), ImagePositionPatient=[float(x) for x in first])
        )
    settings = settings_with(volume=True, size_px=(32, 32, 32), window_hu=(0.0, 4096.0))
    built = build_volume(SeriesFiles(32, files.__getitem__, settings, NAMES), settings, lambda: None)
    values = built.levels / 65535 * 4096 - 2048 + 1024
    # Depth grows towards the head (+z), height towards the back (+y), width towards the left (+x).
    corners = [[[values[z, y, x] for x in (4, 27)] for y in (4, 27)] for z in (4, 27)]
    assert np.allclose(corners, np.arange(8).reshape(2, 2, 2) * 100, atol=0.1)
