"""Outlines become pixels exactly: centre in or on the outline, whatever the order and direction of its points."""

import math

import numpy as np
import pytest
from matplotlib.path import Path

from client.dicom.outlines import LATTICE, combined, filled
from client.dicom.reject import RejectCode, Rejected

SHAPE = (24, 30)
ROWS, COLUMNS = np.mgrid[: SHAPE[0], : SHAPE[1]]


def box(top, left, bottom, right) -> np.ndarray:
    return np.array([(top, left), (top, right), (bottom, right), (bottom, left)], float)


def circle(row, column, radius, points=200) -> np.ndarray:
    turns = np.arange(points) * 2 * math.pi / points
    return np.stack([row + radius * np.sin(turns), column + radius * np.cos(turns)], axis=1)


def mask(*outlines, exclusive=False, shape=SHAPE) -> np.ndarray:
    return combined([filled(one, shape) for one in outlines], shape, exclusive=exclusive)


def within(top, left, bottom, right) -> np.ndarray:
    return (top <= ROWS) & (bottom >= ROWS) & (left <= COLUMNS) & (right >= COLUMNS)


KNOWN = {
    "a box between centres": ([box(2.5, 3.5, 9.5, 11.5)], within(3, 4, 9, 11)),
    "a box through centres: what lies on the path is part of it": ([box(2, 3, 9, 11)], within(2, 3, 9, 11)),
    "a circle": ([circle(12, 14, 8.3, 720)], np.hypot(ROWS - 12, COLUMNS - 14) <= 8.3),
    "a hole": ([box(2.5, 3.5, 15.5, 20.5), box(5.5, 6.5, 9.5, 11.5)], within(3, 4, 15, 20) & ~within(6, 7, 9, 11)),
    "a hole that is stored first": (
        [box(5.5, 6.5, 9.5, 11.5), box(2.5, 3.5, 15.5, 20.5)],
        within(3, 4, 15, 20) & ~within(6, 7, 9, 11),
    ),
    "an island in a hole": (
        [box(1.5, 1.5, 20.5, 25.5), box(3.5, 3.5, 18.5, 20.5), box(6.5, 6.5, 9.5, 9.5)],
        (within(2, 2, 20, 25) & ~within(4, 4, 18, 20)) | within(7, 7, 9, 9),
    ),
    "two islands": ([box(1.5, 1.5, 5.5, 5.5), box(8.5, 9.5, 12.5, 14.5)], within(2, 2, 5, 5) | within(9, 10, 12, 14)),
    "islands that touch": ([box(1.5, 1.5, 5.5, 5.5), box(1.5, 5.5, 5.5, 9.5)], within(2, 2, 5, 9)),
    "an outline that is stored twice": ([box(1.5, 1.5, 5.5, 5.5)] * 2, within(2, 2, 5, 5)),
    "a hole through a keyhole": (
        [np.concatenate([box(2.5, 3.5, 15.5, 20.5), [(2.5, 3.5)], box(5.5, 6.5, 9.5, 11.5)[::-1], [(9.5, 6.5)]])],
        within(3, 4, 15, 20) & ~within(6, 7, 9, 11),
    ),
    "a last point that is the first": ([np.vstack([box(2.5, 3.5, 9.5, 11.5), [(2.5, 3.5)]])], within(3, 4, 9, 11)),
    "what reaches beyond the picture": ([box(-7.5, 20.5, 3.5, 99.5)], within(0, 21, 3, 29)),
    "what lies beyond the picture": ([box(-9.0, 2.0, -3.0, 5.0)], np.zeros(SHAPE, bool)),
    "less than a pixel": ([box(2.2, 3.2, 2.4, 3.4)], np.zeros(SHAPE, bool)),
    "a line has no area": ([np.array([(2.5, 3.5), (9.5, 3.5)])], np.zeros(SHAPE, bool)),
    "a point has no area": ([np.array([(4.5, 4.5)])], np.zeros(SHAPE, bool)),
}  # fmt: skip


@pytest.mark.parametrize("case", KNOWN)
def test_a_known_area_is_filled(case):
    outlines, expected = KNOWN[case]
    assert np.array_equal(mask(*outlines), expected)
    assert np.array_equal(mask(*(one[::-1] for one in outlines)), expected), "drawn the other way round"
    mirrored = [np.stack([SHAPE[0] - 1 - one[:, 0], one[:, 1]], axis=1) for one in outlines]
    assert np.array_equal(mask(*mirrored)[::-1], expected), "slices with rows in the other direction"


def test_exclusive_outlines_cancel_where_two_of_them_lie():
    expected = within(2, 2, 8, 8) ^ within(5, 5, 12, 12)
    assert np.array_equal(mask(box(1.5, 1.5, 8.5, 8.5), box(4.5, 4.5, 12.5, 12.5), exclusive=True), expected)


def test_outlines_that_overlap_in_part_may_mean_a_hole_or_more_area_and_are_refused():
    with pytest.raises(Rejected, match=RejectCode.SEGMENTATION_CONTOURS.value):
        mask(box(1.5, 1.5, 8.5, 8.5), box(4.5, 4.5, 12.5, 12.5))


def slow(points: np.ndarray) -> np.ndarray:
    """Each centre by itself, in Python's whole numbers: is the number of crossings odd, does it lie on an edge."""
    lattice = [tuple(int(x) for x in np.rint(point * LATTICE)) for point in points]
    result = np.zeros(SHAPE, bool)
    for row in range(SHAPE[0]):
        for column in range(SHAPE[1]):
            y, x, odd, on = row * LATTICE, column * LATTICE, False, False
            for (y0, x0), (y1, x1) in zip(lattice, lattice[1:] + lattice[:1], strict=True):
                cross = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
                on |= cross == 0 and min(y0, y1) <= y <= max(y0, y1) and min(x0, x1) <= x <= max(x0, x1)
                if (y0 <= y) != (y1 <= y):
                    odd ^= (cross > 0) == (y1 > y0)
            result[row, column] = odd or on
    return result


@pytest.mark.parametrize("seed", range(6))
def test_any_polygon_is_filled_as_a_test_of_each_centre_says(seed):
    generator = np.random.default_rng(seed)
    points = generator.uniform(-4, 32, (9, 2))
    points = np.rint(points * [1, 2, 4][seed % 3]) / [1, 2, 4][seed % 3] if seed < 3 else points  # on centres and edges
    assert np.array_equal(mask(points), slow(points))


def test_a_polygon_is_filled_as_another_library_does():
    points = circle(11.3, 13.7, 9.0, 40) + np.random.default_rng(1).normal(0, 0.4, (40, 2))
    centres = np.stack([ROWS.ravel(), COLUMNS.ravel()], axis=1)
    assert np.array_equal(mask(points), Path(points).contains_points(centres).reshape(SHAPE))


def test_an_outline_costs_no_more_than_its_window_and_a_bounded_number_of_crossings():
    assert filled(box(2.5, 3.5, 9.5, 11.5), (100_000, 100_000)).inside.shape == (7, 8)
    saw = np.tile([(0.0, 0.0), (4000.0, 1.0)], (1000, 1))
    with pytest.raises(Rejected, match=RejectCode.SEGMENTATION_TOO_LARGE.value):
        filled(saw, (4096, 4))
    with pytest.raises(Rejected, match=RejectCode.SEGMENTATION_GEOMETRY.value):
        filled(np.array([(0.0, 0.0), (1e9, 1.0), (3.0, 3.0)]), SHAPE)
