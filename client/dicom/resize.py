"""Resampling of one picture: linear with antialiasing for values, nearest for labels, on the same grid.

Both take (height, width) arrays and a target spacing; the grid is centred, has exactly the target spacing, and never
reaches outside the picture, so values and labels of one picture stay aligned to a fraction of a pixel.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Values = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
ROUNDING = 1e-9  # of a sample: a centre that lies on the edge of two cells belongs to the later one


@dataclass(frozen=True, slots=True)
class Axis:
    """How one axis is resampled: ``count`` samples over ``length`` source pixels beginning at ``start``."""

    start: float
    length: float
    count: int

    @classmethod
    def with_step(cls, pixels: int, step: float) -> "Axis":
        """Cover ``pixels`` source pixels with samples ``step`` source pixels apart, centred."""
        count = max(1, math.floor(pixels / step + 1e-6))
        length = min(count * step, float(pixels))
        return cls((pixels - length) / 2, length, count)

    @property
    def is_identity(self) -> bool:
        """Whether the samples are the source's own pixels."""
        return abs(self.length - self.count) < 1e-6 * self.count and abs(self.start - round(self.start)) < 1e-6

    def nearest(self) -> npt.NDArray[np.intp]:
        """Return the source pixel nearest to each sample's centre."""
        step = self.length / self.count
        centres = self.start + (np.arange(self.count) + 0.5) * step
        pixels: npt.NDArray[np.intp] = np.floor(centres).astype(np.intp)
        return pixels

    def samples_at(self, places: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
        """Return the sample in whose cell each place lies (source pixels from the outer edge); -1 beyond the samples.

        The inverse of ``nearest``: a pixel's centre lies at its number and a half.
        """
        step = self.length / self.count
        found = np.floor((places - self.start) / step + ROUNDING).astype(np.intp)
        return np.where((found >= 0) & (found < self.count), found, -1)


def resample(picture: Values, rows: Axis, columns: Axis) -> Values:
    """Resample linearly, averaging where the picture shrinks (antialiasing, as torch's ``antialias=True``)."""
    if rows.is_identity and columns.is_identity:
        top, left = round(rows.start), round(columns.start)
        return picture[top : top + rows.count, left : left + columns.count]
    box = (columns.start, rows.start, columns.start + columns.length, rows.start + rows.length)
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((columns.count, rows.count), Image.Resampling.BILINEAR, box=box))


def resample_labels(labels: Labels, rows: Axis, columns: Axis) -> Labels:
    """Resample class numbers by the nearest pixel, on the grid of ``resample``."""
    return labels[rows.nearest()[:, None], columns.nearest()[None, :]]


def centred(picture: npt.NDArray[Any], size_px: tuple[int, ...], fill: float) -> npt.NDArray[Any]:
    """Cut to, or fill up to, ``size_px`` about the centre; any number of axes."""
    if picture.shape == size_px:
        return picture
    result = np.full(size_px, fill, picture.dtype)
    source, target = [], []
    for have, want in zip(picture.shape, size_px, strict=True):
        kept = min(have, want)
        source.append(slice((have - kept) // 2, (have - kept) // 2 + kept))
        target.append(slice((want - kept) // 2, (want - kept) // 2 + kept))
    result[tuple(target)] = picture[tuple(source)]
    return result
