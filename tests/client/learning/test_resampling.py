"""Volumes moved in two passes are where the sampling of whole volumes has them, at the borders too."""

import pytest
import torch
from torch.nn import functional

from client.learning.resampling import nearest_volume, resampled_volume
from client.learning.views import STRONG, WEAK, draw_views, inverse_affine

SIZE = (20, 24, 16)


def matrix(seed, limits=STRONG):
    draws = draw_views(1, dimensions=3, generator=torch.Generator().manual_seed(seed))
    return inverse_affine(draws.geometry, limits, dimensions=3)


def whole(volume, found, mode):
    """PyTorch's own sampling of volumes."""
    grid = functional.affine_grid(found.float(), [1, *volume.shape], align_corners=False)
    return functional.grid_sample(volume[None], grid, mode=mode, padding_mode="border", align_corners=False)[0]


def smooth():
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in SIZE), indexing="ij")
    return torch.stack((torch.sin(3 * x + y) * torch.cos(2 * z - y), z * x + y))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limits", [WEAK, STRONG], ids=["weak", "strong"])
def test_a_smooth_volume_is_moved_as_voxel_by_voxel(seed, limits):
    found = matrix(seed, limits)
    moved = resampled_volume(smooth(), found[0].tolist())
    expected = whole(smooth(), found, "bilinear")
    inner = (slice(None), *(slice(side // 4, -side // 4) for side in SIZE))
    assert moved.shape == expected.shape
    assert float((moved - expected)[inner].abs().max()) < 5e-3
    assert float((moved - expected).abs().mean()) < 5e-3


def test_no_movement_gives_the_volume_back():
    volume = torch.rand(2, *SIZE)
    still = torch.eye(3, 4).tolist()
    assert torch.allclose(resampled_volume(volume, still), volume, atol=1e-5)
    assert torch.equal(nearest_volume(volume, still), volume)


@pytest.mark.parametrize("axis", range(3))
def test_a_shift_moves_along_its_own_axis(axis):
    volume = torch.rand(1, *SIZE)
    shifted = torch.eye(3, 4)
    shifted[2 - axis, 3] = 2 * 2 / SIZE[axis]  # two voxels, over (x, y, z)
    expected = torch.roll(volume, -2, 1 + axis).narrow(1 + axis, 0, SIZE[axis] - 2)
    for moved in (resampled_volume, nearest_volume):
        found = moved(volume, shifted.tolist())
        assert torch.allclose(found.narrow(1 + axis, 0, SIZE[axis] - 2), expected, atol=1e-5)
        last = volume.select(1 + axis, SIZE[axis] - 1)
        assert torch.allclose(found.select(1 + axis, SIZE[axis] - 1), last, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_labels_are_moved_where_the_picture_is(seed):
    labels = (torch.rand(1, *SIZE) * 4).floor()
    found = matrix(seed)
    agree = nearest_volume(labels, found[0].tolist()) == whole(labels, found, "nearest")
    assert float(agree.float().mean()) > 0.999  # but for places between two voxels


def test_the_values_stay_within_those_of_the_scan():
    volume = torch.rand(1, *SIZE)
    moved = resampled_volume(volume, matrix(1)[0].tolist())
    assert float(volume.min()) <= float(moved.min()) <= float(moved.max()) <= float(volume.max())
