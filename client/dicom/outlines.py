"""Closed outlines -> pixels, exactly: a pixel belongs to an area if its centre lies inside of it, or on its outline.

Points are put on a lattice of 1/8192 pixel first; after that nothing is rounded, so neither the order and direction of
the points nor the direction of the rows matters, and the two sides of a keyhole's channel cancel. What is inside is
decided by even-odd parity. Source: DICOM PS3.3 section C.8.8.6.3 (keyhole, exclusive disjunction, points on the path).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.dicom.reject import RejectCode, Rejected

LATTICE = 8192  # steps in a pixel
FARTHEST_PX = 1 << 16  # so that products of two lattice numbers stay below 2^63
MAX_CROSSINGS = 1 << 22  # of one outline with the rows of pixels
Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outline:
    """One filled outline within the window of the picture that holds it.

    ``inside``: by parity; ``path``: centres on the outline; both (height, width) from pixel (``top``, ``left``) on.
    """

    top: int
    left: int
    inside: Mask
    path: Mask

    def of(self, picture: Mask) -> Mask:
        """Return a view of the window in a whole picture."""
        height, width = self.inside.shape
        return picture[self.top : self.top + height, self.left : self.left + width]


def filled(points_px: npt.NDArray[np.float64], shape: tuple[int, int]) -> Outline:
    """Fill one closed outline; what lies outside of the picture is cut off.

    ``points_px``: (points, 2), row and column, pixel centres at whole numbers; the last point is joined to the first.
    Raises: Rejected(segmentation_geometry) for points thousands of pixels away, Rejected(segmentation_too_large).
    """
    if not np.abs(points_px).max(initial=0) < FARTHEST_PX:
        raise Rejected(RejectCode.SEGMENTATION_GEOMETRY)
    points = np.rint(points_px * LATTICE).astype(np.int64)
    low = np.maximum(-(-points.min(axis=0) // LATTICE), 0)
    high = np.minimum(points.max(axis=0) // LATTICE, np.array(shape) - 1)
    (top, left), (height, width) = map(int, low), map(int, np.maximum(high - low + 1, 0))
    if not height or not width:
        return Outline(0, 0, np.zeros((0, 0), np.bool_), np.zeros((0, 0), np.bool_))
    inside, path = _parity_and_path(points - low * LATTICE, height, width)
    return Outline(top, left, inside, path)


def _parity_and_path(points: Points, height: int, width: int) -> tuple[Mask, Mask]:
    toggles = np.zeros((height, width + 1), np.int64)  # the last column takes what begins to the right of the window
    steps = np.zeros((height, width + 1), np.int64)
    following = np.roll(points, -1, axis=0)
    is_up = (points[:, 0] > following[:, 0])[:, None]
    start, end = np.where(is_up, following, points), np.where(is_up, points, following)
    row, numerator, denominator = _crossings(start, end, height)
    np.add.at(toggles, (row, np.clip(-(-numerator // denominator), 0, width)), 1)
    on_centre = numerator % denominator == 0
    _mark(steps, row[on_centre], *([numerator[on_centre] // denominator[on_centre]] * 2))
    centres = points[(points % LATTICE == 0).all(axis=1)] // LATTICE
    _mark(steps, centres[:, 0], centres[:, 1], centres[:, 1])
    level = (start[:, 0] == end[:, 0]) & (start[:, 0] % LATTICE == 0)
    ends = np.sort(np.stack([start[level, 1], end[level, 1]]), axis=0)
    _mark(steps, start[level, 0] // LATTICE, -(-ends[0] // LATTICE), ends[1] // LATTICE)
    inside = np.cumsum(toggles, axis=1)[:, :-1] % 2 == 1
    return inside, np.cumsum(steps, axis=1)[:, :-1] > 0


def _crossings(start: Points, end: Points, height: int) -> tuple[Points, Points, Points]:
    """Return where edges cross rows of centres: row, and the column as a fraction (numerator, denominator).

    An edge holds its upper end and not its lower one, so that a corner counts once.
    """
    first = np.maximum(-(-start[:, 0] // LATTICE), 0)
    counts = np.maximum(np.minimum(-(-end[:, 0] // LATTICE), height) - first, 0)
    if counts.sum() > MAX_CROSSINGS:
        raise Rejected(RejectCode.SEGMENTATION_TOO_LARGE)
    edge = np.repeat(np.arange(len(counts)), counts)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    rise, run = (end - start)[edge].T
    return row, start[edge, 1] * rise + (row * LATTICE - start[edge, 0]) * run, rise * LATTICE


def _mark(steps: Points, row: Points, first: Points, last: Points) -> None:
    """Note stretches of a row, ``first`` to ``last``, as steps up and down of a running sum."""
    height, width = steps.shape[0], steps.shape[1] - 1
    seen = (row >= 0) & (row < height) & (first <= last) & (first < width) & (last >= 0)
    np.add.at(steps, (row[seen], np.maximum(first[seen], 0)), 1)
    np.add.at(steps, (row[seen], np.minimum(last[seen], width - 1) + 1), -1)


def combined(outlines: Iterable[Outline], shape: tuple[int, int], *, exclusive: bool) -> Mask:
    """Lay the outlines of one structure in one slice over one another: islands, holes, islands in holes.

    ``exclusive``: the file says that they are combined by exclusive disjunction. Otherwise an outline that lies wholly
    within another one is a hole (or an island in a hole), as planning systems have written them for decades, and one
    that is stored twice counts once; outlines that overlap in part may mean either and are refused.
    Raises: Rejected(segmentation_contours).
    """
    area, paths = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    known: set[tuple[int, int, tuple[int, ...], bytes]] = set()
    for outline in sorted(outlines, key=lambda one: int(one.inside.sum()), reverse=True):
        under = outline.of(area)
        outline.of(paths)[...] |= outline.path
        if not exclusive:
            name = outline.top, outline.left, outline.inside.shape, outline.inside.tobytes()
            if name in known:
                continue
            known.add(name)
            covered = under[outline.inside]
            if covered.any() and not covered.all():
                raise Rejected(RejectCode.SEGMENTATION_CONTOURS)
        under ^= outline.inside
    return area | paths
