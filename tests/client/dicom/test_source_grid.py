"""From the study's grid back to the scanner's: what goes there and back is what it was, however the scanner's lay."""

from itertools import permutations, product

import numpy as np
import pytest

from client.dicom.grid import Grid
from client.dicom.instance import axes_of
from client.dicom.resize import Axis, centred, resample_labels
from client.dicom.series import Geometry
from client.dicom.source_grid import on_picture, on_slices, on_volume, thickness_mm

SHAPE = (7, 10, 9)
DIRECTIONS = [
    tuple((sign, axis) for sign, axis in zip(signs, axes, strict=True))
    for axes in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


def geometry_of(direction, spacing_mm=(1.0, 1.0, 1.0), shape=SHAPE, **more) -> Geometry:
    """A scanner's grid whose axes lead along (sign, patient axis), a little turned: no scan is quite straight."""
    turn = 0.15
    slight = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    for column, ((sign, axis), mm) in enumerate(zip(direction, spacing_mm, strict=True)):
        affine[:3, column] = slight @ (sign * mm * np.eye(3)[axis])
    affine[:3, 3] = -30, 11, 70
    return Geometry(shape, affine, spacing_mm, **more)


def labels_of(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)


@pytest.mark.parametrize("size_px", [(16, 16, 16), (10, 11, 13)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_direction_of_a_scan_comes_back_as_it_was(direction, size_px, settings_with):
    """48 ways to lie along the patient's axes; a study's grid of the same spacing that is large enough, odd or even."""
    grid = Grid.for_study(geometry_of(direction), settings_with(volume=True, size_px=size_px))
    drawn = labels_of(SHAPE)
    back = on_slices(grid.label_map(drawn), grid, SHAPE[1:])
    assert (back == drawn).all()
    assert (on_volume(grid.label_map(drawn), grid) == drawn).all()


@pytest.mark.parametrize("size_px", [(8, 8, 8), (8, 9, 8)])
def test_what_the_study_cuts_off_is_background_and_the_rest_stays_in_its_place(size_px, settings_with):
    for direction in DIRECTIONS[::5]:
        shape = (17, 16, 19)
        grid = Grid.for_study(geometry_of(direction, shape=shape), settings_with(volume=True, size_px=size_px))
        drawn = labels_of(shape) % 3 + 1  # no voxel is background
        seen = grid.label_map(drawn)
        back = on_slices(seen, grid, shape[1:])
        assert (back > 0).sum() == seen.size
        assert (back[back > 0] == drawn[back > 0]).all()
        assert (grid.label_map(back) == seen).all()


@pytest.mark.parametrize("spacing_mm", [(3.0, 2.0, 2.0), (0.5, 0.5, 0.5), (1.7, 0.9, 1.3)])
def test_what_the_study_sees_again_is_what_it_answered(spacing_mm, settings_with):
    """Resampled to the scanner's grid and back: an answer on a coarser grid is the same answer; on a finer one, nearly.

    Scanner's voxels of 1 mm; the study's are larger, half as large, or neither.
    """
    settings = settings_with(volume=True, size_px=(8, 12, 12), spacing_mm=spacing_mm)
    for direction in DIRECTIONS[::7]:
        grid = Grid.for_study(geometry_of(direction, shape=(24, 24, 24)), settings)
        blocks = np.kron(labels_of((4, 6, 6)), np.ones((2, 2, 2), np.uint8))
        answer = grid.label_map(on_volume(blocks, grid))
        inside = grid.label_map(np.ones((24, 24, 24), np.uint8)) > 0
        least = 1.0 if min(spacing_mm) >= 1 or max(spacing_mm) < 1 else 0.95
        assert (answer == blocks)[inside].mean() >= least


def test_slices_of_a_tilted_gantry_are_each_at_their_own_place(settings_with):
    offsets = tuple((float(n), 0.0) for n in range(7))
    shape = (7, 10 + 6, 9)
    grid = Grid.for_study(
        geometry_of(DIRECTIONS[0], shape=shape, offsets_px=offsets), settings_with(volume=True, size_px=(16, 32, 32))
    )
    drawn = labels_of(SHAPE)
    laid = np.zeros(shape, np.uint8)
    for place, (top, _) in enumerate(offsets):
        laid[place, int(top) : int(top) + 10] = drawn[place]
    assert (on_slices(grid.label_map(laid), grid, SHAPE[1:]) == drawn).all()


def test_slices_with_uneven_gaps_are_found_where_they_lie_and_stand_for_what_is_around_them(settings_with):
    depths = (0.0, 1.0, 2.0, 4.0, 6.0)
    grid = Grid.for_study(
        geometry_of(DIRECTIONS[0], (2.0, 1.0, 1.0), (7, 10, 9), depths=depths),
        settings_with(volume=True, size_px=(16, 16, 16), spacing_mm=(2.0, 1.0, 1.0)),
    )
    laid = labels_of((7, 10, 9))
    assert thickness_mm(grid).tolist() == [2.0, 2.0, 3.0, 4.0, 4.0]
    roles = Grid.for_study(grid.geometry, settings_with(volume=True, size_px=(16, 16, 16), spacing_mm=(1.0,) * 3))
    back = on_slices(roles.label_map(laid), roles, (10, 9))
    assert (back == laid[[0, 1, 2, 4, 6]]).all()


@pytest.mark.parametrize("shape", [(20, 31), (64, 40), (32, 32)])
@pytest.mark.parametrize("spacing_mm", [(), (1.0, 1.0)])
def test_pictures_come_back_too(shape, spacing_mm, settings_with):
    settings = settings_with(kind="segmentation", spacing_mm=spacing_mm, size_px=(32, 32))
    rows, columns, _ = axes_of(shape, (1.0, 1.0), settings)
    drawn = np.kron(labels_of((shape[0] // 4 + 1, shape[1] // 4 + 1)), np.ones((4, 4), np.uint8))[
        : shape[0], : shape[1]
    ]
    seen = centred(resample_labels(drawn, rows, columns), (32, 32), 0)
    back = on_picture(seen, (rows, columns), shape)
    again = centred(resample_labels(back, rows, columns), (32, 32), 0)
    assert (again == seen).mean() > 0.99
    if rows.is_identity and columns.is_identity:
        assert (back[back > 0] == drawn[back > 0]).all()


@pytest.mark.parametrize(("pixels", "step"), [(20, 1.0), (20, 2.0), (20, 0.5), (21, 2.0), (7, 3.3)])
def test_a_sample_is_found_again_from_the_pixel_nearest_to_it(pixels, step):
    axis = Axis.with_step(pixels, step)
    found = axis.samples_at(axis.nearest() + 0.5)
    assert np.abs(found - np.arange(axis.count)).max() <= (0 if step >= 1 else 1)
