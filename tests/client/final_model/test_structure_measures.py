"""Measures of masks against answers that are known: shapes whose distances anybody can count, and MONAI's functions."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from client.final_model.structure_measures import measured, tolerance_mm


def box(*bounds, shape=(20, 20, 20)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*bound) for bound in bounds)] = True
    return mask


CUBE = box((5, 10), (5, 10), (5, 10))
KNOWN = {  # answer, expert, spacing -> HD95 mm, surface Dice, volume error ml
    "the same": (CUBE, CUBE, (1.0, 1.0, 1.0), 0.0, 1.0, 0.0),
    "moved by three voxels of 2 mm": (
        box((8, 13), (5, 10), (5, 10)), CUBE, (2.0, 1.0, 1.0), 6.0, None, 0.0,
    ),
    "far from each other": (
        box((15, 16), (5, 6), (5, 6)), box((1, 2), (5, 6), (5, 6)), (1.0, 1.0, 1.0), 14.0, 0.0, 0.0,
    ),
    "nothing found": (np.zeros_like(CUBE), CUBE, (1.0, 1.0, 1.0), None, 0.0, -0.125),
    "nothing there": (CUBE, np.zeros_like(CUBE), (2.0, 1.0, 1.0), None, 0.0, 0.25),
    "one voxel larger on all sides": (
        box((4, 11), (4, 11), (4, 11)), CUBE, (1.0, 1.0, 1.0), None, 1.0, 0.343 - 0.125,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", KNOWN)
def test_distances_and_volumes_that_can_be_counted_are_those(case):
    answer, expert, spacing, hd95, surface_dice, error = KNOWN[case]
    found = measured(answer, expert, spacing)
    assert found.volume_error_ml == pytest.approx(error)
    assert found.hd95_mm == (pytest.approx(hd95) if hd95 is not None else found.hd95_mm)
    assert found.surface_dice == (pytest.approx(surface_dice) if surface_dice is not None else found.surface_dice)
    if not answer.any() or not expert.any():
        assert found.hd95_mm is None


def test_what_neither_has_is_not_measured():
    assert measured(np.zeros((4, 4), bool), np.zeros((4, 4), bool), ()) is None


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.7, 1.3)])
@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_monai(seed, spacing):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(18)] * 3, indexing="ij"), -1)
    centres = rng.uniform(6, 11, (2, 3))
    answer, expert = (((grid - centre) ** 2 * (1, 1.5, 2)).sum(-1) < 22 for centre in centres)
    found = measured(answer, expert, spacing)
    pair = [torch.from_numpy(np.stack([~one, one]))[None] for one in (answer, expert)]
    theirs = compute_hausdorff_distance(*pair, percentile=95, spacing=spacing)
    assert found.hd95_mm == pytest.approx(float(theirs[0, 0]), rel=1e-5)
    share = compute_surface_dice(*pair, class_thresholds=[tolerance_mm(spacing)], spacing=spacing)
    assert found.surface_dice == pytest.approx(float(share[0, 0]), abs=1e-6)


def test_lesions_are_counted_one_by_one():
    shape = (12, 12)
    expert = box((1, 3), (1, 3), shape=shape) | box((6, 8), (6, 8), shape=shape) | box((10, 11), (1, 2), shape=shape)
    answer = box((2, 4), (2, 4), shape=shape) | box((6, 7), (10, 12), shape=shape) | box((9, 10), (2, 3), shape=shape)
    found = measured(answer, expert, (), is_lesion=True)
    assert (found.lesions, found.lesions_found, found.false_lesions) == (3, 1, 2)


@pytest.mark.parametrize(("spacing", "expected"), [((1.0, 1.0, 1.0), 2.0), ((5.0, 1.0, 1.0), 5.0), ((), 1.0)])
def test_the_tolerance_is_two_millimetres_or_a_voxel(spacing, expected):
    assert tolerance_mm(spacing) == expected
