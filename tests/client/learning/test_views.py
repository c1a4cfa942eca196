"""Views: mild, batched, laterality kept, one draw a scan, nothing shared between patients."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from client.learning.views import (
    STRONG,
    WEAK,
    WIDE,
    ViewRange,
    apply_geometry,
    draw_views,
    hide_patches,
    inverse_affine,
    rotation_3d,
    smooth_fields,
    view,
)

SIZES = {2: (17, 20), 3: (8, 10, 12)}
STILL = ViewRange(shift=0, scale=0, angle=0, gain=0, offset=0, gamma=0, noise=0, cutout=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(dimensions, count=4):
    return torch.rand(count, 1, *SIZES[dimensions], generator=generator(1))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("limits", [WEAK, STRONG, WIDE, replace(WIDE, mirrored=(0, 1))])
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


@pytest.mark.parametrize("dimensions", [2, 3])
def test_an_image_and_its_label_map_are_bent_turned_and_mirrored_alike(dimensions):
    where = torch.zeros(20, 1, *(24 for _ in range(dimensions)))
    where[(slice(None), slice(None), *(slice(5, 14) for _ in range(dimensions)))] = 1.0
    draws, limits = draw_views(20, dimensions=dimensions, generator=generator(2)), replace(WIDE, mirrored=(0, 1))
    seen, labels = (apply_geometry(where, draws, limits, mode=mode) for mode in ("bilinear", "nearest"))
    assert set(labels.unique().tolist()) == {0.0, 1.0}
    assert float(((seen > 0.5) != (labels > 0.5)).float().mean()) < 0.02
    assert float((labels != where).float().mean()) > 0.02


@pytest.mark.parametrize(("axes", "turned"), [((0,), {-1}), ((1,), {-2}), ((0, 1), {-1, -2}), ((), set())])
def test_half_of_the_views_are_turned_over_along_the_allowed_axes_and_no_other(axes, turned):
    scans = torch.rand(60, 1, 9, 7, generator=generator(4))
    found = apply_geometry(scans, draw_views(60, dimensions=2, generator=generator()), replace(STILL, mirrored=axes))
    for axis in (-1, -2):
        over = [
            any(
                torch.allclose(one, scan.flip((axis, *others)), atol=1e-5)
                for others in ((), *((other,) for other in turned - {axis}))
            )
            for one, scan in zip(found, scans, strict=True)
        ]
        assert (0.25 < sum(over) / 60 < 0.75) if axis in turned else not any(over)


def test_a_bias_field_is_smooth_and_of_the_scans_own_numbers():
    alone, beside = smooth_fields(9, 1, 1, size=(32, 32)), smooth_fields(9, 3, 1, size=(32, 32))
    assert torch.equal(alone[0], beside[0])
    assert float(alone.abs().max()) <= 1
    assert float(alone.diff(dim=-1).abs().max()) < 0.25
    flat = torch.full((2, 1, 32, 32), 0.5)
    seen = view(flat, draw_views(2, dimensions=2, generator=generator()), replace(STILL, bias=0.3))
    assert 0.02 < float(seen.std()) < 0.15
