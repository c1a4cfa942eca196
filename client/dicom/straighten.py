"""Slices as scanned -> slices on an even, upright grid: a tilted gantry sheared back, uneven gaps interpolated."""

import math

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]


def shifted(picture: Values, offset_px: tuple[float, float], shape: tuple[int, int]) -> Values:
    """Lay a slice at ``offset_px`` (rows, columns, not negative) on a larger canvas, linear between pixels.

    Shapes: picture (rows, columns) -> ``shape``. Where the slice has nothing stands its lowest value (air).
    """
    result = np.full(shape, picture.min(), np.float32)
    top, left = math.floor(offset_px[0]), math.floor(offset_px[1])
    moved = _blended(_blended(picture, offset_px[0] - top, 0), offset_px[1] - left, 1)
    height, width = min(moved.shape[0], shape[0] - top), min(moved.shape[1], shape[1] - left)
    result[top : top + height, left : left + width] = moved[:height, :width]
    return result


def _blended(picture: Values, share: float, axis: int) -> Values:
    """Move by a fraction of a pixel along an axis: one pixel longer, unless the fraction is nothing."""
    if share < 1e-6:
        return picture
    widths = [(0, 0), (0, 0)]
    widths[axis] = (1, 1)
    padded = np.pad(picture, widths, mode="edge")
    near, far = (np.take(padded, range(start, padded.shape[axis] - 1 + start), axis) for start in (1, 0))
    blended: Values = near * np.float32(1 - share) + far * np.float32(share)
    return blended


def evened(stack: Values, depths: tuple[float, ...], count: int) -> Values:
    """Return ``count`` slices at depths 0, 1, ... from slices at ``depths`` (rising, in steps), linear between them.

    Shapes: stack (slices, height, width) -> (count, height, width).
    """
    result = np.empty((count, *stack.shape[1:]), np.float32)
    places = np.array(depths)
    for step in range(count):
        after = int(np.clip(np.searchsorted(places, step, side="right"), 1, len(places) - 1))
        share = np.float32(np.clip((step - places[after - 1]) / (places[after] - places[after - 1]), 0, 1))
        result[step] = stack[after - 1] * (1 - share) + stack[after] * share
    return result
