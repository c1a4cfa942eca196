"""From the study's grid back to the scanner's: the inverse of ``grid`` and of ``instance.picture_axes``, for answers.

Each voxel of the scanner takes the class of the sample in whose cell its centre lies; what the study's grid does not
reach is background. Where the two grids are the same, or whole multiples of one another, nothing is lost on the way
there and back. Nothing has to be kept in a cache for it: the headers say it all again.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from client.dicom.grid import AXIS_OF_LETTER, TARGET, Grid
from client.dicom.resize import Axis, Labels

Places = npt.NDArray[np.floating]
Indices = npt.NDArray[np.intp]
OUTSIDE = -1


def on_volume(label_map: Labels, grid: Grid) -> Labels:
    """Return class numbers (slices, rows, columns) on the even, upright grid of a volume (``grid.geometry``).

    Shapes: label_map (depth, height, width) of the study.
    """
    places = [np.arange(count) + 0.5 for count in grid.geometry.shape]
    return _turned_back(label_map, grid, places)


def on_slices(label_map: Labels, grid: Grid, size_px: tuple[int, int]) -> Labels:
    """Return class numbers (slices, rows, columns) of the slices as they were scanned, in their order along the normal.

    ``size_px``: rows and columns of a slice; a tilted gantry's slices lie on a larger grid, each at its own place.
    """
    geometry = grid.geometry
    depths = np.array(geometry.depths or range(geometry.shape[0])) + 0.5
    rows, columns = (np.arange(count) + 0.5 for count in size_px)
    if not geometry.offsets_px:
        return _turned_back(label_map, grid, [depths, rows, columns])
    slices = [
        _turned_back(label_map, grid, [depths[place : place + 1], rows + top, columns + left])[0]
        for place, (top, left) in enumerate(geometry.offsets_px)
    ]
    return np.stack(slices)


def on_picture(label_map: Labels, axes: tuple[Axis, Axis], shape: tuple[int, int]) -> Labels:
    """Return class numbers (rows, columns) on the pixels of a 2-D picture. Shapes: label_map (height, width)."""
    found = [
        _uncentred(axis.samples_at(np.arange(count) + 0.5), axis.count, size)
        for axis, count, size in zip(axes, shape, label_map.shape, strict=True)
    ]
    return _picked(label_map, found)


def thickness_mm(grid: Grid) -> Places:
    """Return how much of the normal each slice stands for, in millimetres: half of the way to both neighbours."""
    geometry = grid.geometry
    depths = np.array(geometry.depths or range(geometry.shape[0]), np.float64) * geometry.spacing_mm[0]
    gaps = np.diff(depths)
    around = np.concatenate([gaps[:1], gaps, gaps[-1:]])
    halves: Places = (around[:-1] + around[1:]) / 2
    return halves


def _turned_back(label_map: Labels, grid: Grid, places: Sequence[Places]) -> Labels:
    """Look up places along the scanner's three axes (slice, row, column), in pixels from the outer edge."""
    roles = [AXIS_OF_LETTER[letter] for letter in grid.letters]
    cut = (grid.axes[0].count, *grid.slice_size_px)
    found = []
    for axis, place, kept, role, letter in zip(grid.axes, places, cut, roles, grid.letters, strict=True):
        on_cut = _uncentred(axis.samples_at(place), axis.count, kept)
        upright = on_cut if letter == TARGET[role] else np.where(on_cut == OUTSIDE, OUTSIDE, kept - 1 - on_cut)
        found.append(_uncentred(upright, kept, grid.target_size_px[role]))
    return _picked(np.transpose(label_map, roles), found)


def _uncentred(indices: Indices, have: int, want: int) -> Indices:
    """Follow indices through ``resize.centred``: cut to, or filled up to, ``want`` about the centre."""
    kept = min(have, want)
    start = (have - kept) // 2
    inside = (indices >= start) & (indices < start + kept)
    return np.where(inside, indices - start + (want - kept) // 2, OUTSIDE)


def _picked(label_map: Labels, indices: Sequence[Indices]) -> Labels:
    picked: Labels = label_map[np.ix_(*(np.maximum(one, 0) for one in indices))]
    for number, one in enumerate(indices):
        outside: list[Any] = [slice(None)] * len(indices)
        outside[number] = one == OUTSIDE
        picked[tuple(outside)] = 0
    return picked
