"""Views: mild, batched, laterality kept, one draw a scan, nothing shared between patients."""

import numpy as np
import pytest
import torch

from client.learning.views import (
    STRONG,
    WEAK,
    ViewRange,
    apply_geometry,
    draw_views,
    hide_patches,
    inverse_affine,
    rotation_3d,
    view,
)

SIZES = {2: (17, 20), 3: (8, 10, 12)}
STILL = ViewRange(shift=0, scale=0, angle=0, gain=0, offset=0, gamma=0, noise=0, cutout=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(dimensions, count=4):
    return torch.rand(count, 1, *SIZES[dimensions], generator=generator(1))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("limits", [WEAK, STRONG])
def test_a_view_keeps_shape_and_type_changes_something_and_leaves_its_input_alone(dimensions, limits):
    scans = images(dimensions)
    copy = scans.clone()
    found = view(scans, draw_views(4, dimensions=dimensions, generator=generator()), limits)
    assert found.shape == scans.shape
    assert found.dtype == scans.dtype
    assert bool(torch.isfinite(found).all())
    assert not torch.equal(found, scans)
    assert torch.equal(scans, copy)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_view_with_no_range_is_the_scan_itself(dimensions):
    scans = images(dimensions)
    found = view(scans, draw_views(4, dimensions=dimensions, generator=generator()), STILL)
    torch.testing.assert_close(found, scans, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_left_stays_left_in_every_view(dimensions):
    scans = torch.zeros(200, 1, *SIZES[dimensions])
    scans[..., :5] = 1.0  # bright on the left
    found = view(scans, draw_views(200, dimensions=dimensions, generator=generator()), STRONG)
    middle = found.shape[-1] // 2
    left, right = found[..., :middle].flatten(1).mean(1), found[..., middle:].flatten(1).mean(1)
    assert bool((left > right).all())


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("limits", [WEAK, STRONG])
def test_where_a_scan_is_moved_to_is_the_same_bits_whatever_is_beside_it(dimensions, limits):
    geometry = draw_views(40, dimensions=dimensions, generator=generator(7)).geometry
    together = inverse_affine(geometry, limits, dimensions=dimensions)
    for count in range(1, 40):
        assert torch.equal(inverse_affine(geometry[:count], limits, dimensions=dimensions), together[:count])
        assert torch.equal(inverse_affine(geometry[count:], limits, dimensions=dimensions), together[count:])


ANGLES = [(0.0, 0.0, 0.0), (1e-200, 0.0, 0.0), (1e-9, -1e-9, 0.0), (0.2, -0.1, 0.15), (0.0, 0.0, 1.5), (-2.0, 2.0, 1.0)]


@pytest.mark.parametrize("angles", ANGLES, ids=str)
def test_a_turn_in_space_is_the_exponential_of_its_axis(angles):
    x, y, z = angles
    skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    turn = torch.tensor(rotation_3d(*angles), dtype=torch.float64)
    torch.testing.assert_close(turn, torch.linalg.matrix_exp(skew), rtol=0, atol=1e-14)
    torch.testing.assert_close(turn @ turn.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-14)


def test_weak_views_are_closer_to_the_scan_than_strong_ones():
    scans = images(2, 64)
    draws = draw_views(64, dimensions=2, generator=generator())
    moves = [(view(scans, draws, limits) - scans).abs().mean() for limits in (WEAK, STRONG)]
    assert moves[0] < 0.7 * moves[1]


def test_each_scan_has_a_draw_of_its_own():
    scan = images(2, 1).expand(6, -1, -1, -1)
    found = view(scan, draw_views(6, dimensions=2, generator=generator()), STRONG)
    assert len({tuple(one.flatten()[:50].tolist()) for one in found}) == 6


def test_the_shift_moves_a_point_by_at_most_its_limit():
    scans = torch.zeros(100, 1, 41, 41)
    scans[:, 0, 20, 20] = 1.0
    limits = ViewRange(shift=0.1, scale=0, angle=0, gain=0, offset=0, gamma=0, noise=0, cutout=0)
    found = apply_geometry(scans, draw_views(100, dimensions=2, generator=generator()), limits)
    rows, columns = np.unravel_index(found.flatten(1).argmax(1).numpy(), (41, 41))
    moved = np.maximum(abs(rows - 20), abs(columns - 20))
    assert moved.max() <= 3, "a tenth of the half image is 2.05 pixels"
    assert moved.max() >= 1


def test_nearest_geometry_makes_no_new_classes():
    labels = torch.randint(0, 4, (8, 1, 16, 16), generator=generator()).float()
    moved = apply_geometry(labels, draw_views(8, dimensions=2, generator=generator()), STRONG, mode="nearest")
    assert set(moved.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("dimensions", [2, 3])
def test_hidden_patches_are_about_the_share_asked_for_and_hold_the_mean(dimensions):
    scans = images(dimensions, 60)
    draws = draw_views(60, dimensions=dimensions, generator=generator())
    shown = hide_patches(scans, 0.5, draws)
    changed = (shown != scans).float().mean()
    assert 0.4 < changed < 0.6
    means = scans.flatten(1).mean(1)
    for scan, whole, mean in zip(shown, scans, means, strict=True):
        torch.testing.assert_close(scan[scan != whole], mean.expand(int((scan != whole).sum())))


def test_equal_generators_give_equal_views():
    scans = images(2)
    first, second = (view(scans, draw_views(4, dimensions=2, generator=generator(3)), STRONG) for _ in range(2))
    assert torch.equal(first, second)
