"""Soft shapes and smooth noise on a grid, for many images at once.

Axes: images are (N, H, W), volumes (N, D, H, W). Coordinates run from -1 to 1 along each axis, the last axis is x.
A shape is a float32 field in [0, 1]: 1 inside, 0 outside, a smooth step between; fields multiply and add like masks
in a drawing programme. Parameters that differ between images have the shape (N, 1, 1) or (N, 1, 1, 1), see ``column``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]  # float32 throughout; the type leaves numpy room to infer


def column(values: NDArray[np.floating], dimensions: int) -> Field:
    """Shape one number for each image, (N,), so that it broadcasts over ``dimensions`` grid axes."""
    return values.astype(np.float32).reshape(-1, *([1] * dimensions))


def grid(shape: Sequence[int]) -> tuple[Field, ...]:
    """Give one coordinate field (1, ...) for each axis of ``shape``, pixel centres in (-1, 1), in axis order."""
    axes = [(np.arange(length, dtype=np.float32) * 2 + 1) / length - 1 for length in shape]
    return tuple(np.asarray(axis[np.newaxis]) for axis in np.meshgrid(*axes, indexing="ij", sparse=True))


def smooth_step(distance: Field, softness: float | Field) -> Field:
    """Map a signed distance to [0, 1]: 0.5 at distance 0, flat beyond +-``softness`` (3t^2 - 2t^3)."""
    t: Field = np.clip(distance / (2 * softness) + 0.5, 0, 1).astype(np.float32)
    return t * t * (3 - 2 * t)


def ellipsoid(
    offsets: Sequence[Field], radii: Sequence[float | Field], softness: float | Field = 0.15, power: float = 2
) -> Field:
    """Draw a filled (super-)ellipse or ellipsoid from coordinates relative to its centre.

    ``offsets`` and ``radii`` list the axes in the same order; ``power`` above 2 gives squarer shapes.
    """
    total: Field = np.zeros(1, np.float32)
    for offset, radius in zip(offsets, radii, strict=True):
        scaled = offset / radius
        total = total + (scaled * scaled if power == 2 else np.abs(scaled) ** power)
    return smooth_step(1 - total, softness)


def spot(offsets: Sequence[Field], radii: Sequence[float | Field]) -> Field:
    """Draw a Gaussian spot, exp(-d^2 / 2) with one radius (standard deviation) for each axis."""
    total: Field = np.zeros(1, np.float32)
    for offset, radius in zip(offsets, radii, strict=True):
        total = total + (offset / radius) ** 2
    return np.asarray(np.exp(total * -0.5), np.float32)


def smooth_noise(rng: np.random.Generator, count: int, shape: Sequence[int], cells: int) -> Field:
    """Draw ``count`` smooth random fields of mean 0 and standard deviation about 1 with ``cells`` cells an axis.

    White noise on a coarse grid times one small interpolation matrix for each axis: quick at any image size.
    """
    coarse = rng.standard_normal((count, *([cells + 2] * len(shape))), dtype=np.float32)
    for axis, length in enumerate(shape, start=1):
        rows = interpolation(length, cells)
        coarse = np.moveaxis(np.tensordot(coarse, rows, axes=(axis, 1)), -1, axis)
    return np.ascontiguousarray(coarse)


def interpolation(length: int, cells: int) -> Field:
    """Build the (length, cells + 2) matrix that spreads coarse values with a Gaussian, rows of unit L2 norm."""
    centres = np.arange(cells + 2, dtype=np.float32) - 0.5
    positions = (np.arange(length, dtype=np.float32) + 0.5) * cells / length
    rows = np.exp(-((positions[:, None] - centres) ** 2) / (2 * 0.6**2))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def turbulence(rng: np.random.Generator, count: int, shape: Sequence[int], octaves: Sequence[int]) -> Field:
    """Add smooth noise of several cell counts, halving the amplitude each time: tissue-like texture, stddev about 1."""
    fields = [smooth_noise(rng, count, shape, cells) * np.float32(0.5**i) for i, cells in enumerate(octaves)]
    scale = np.sqrt(sum(0.25**i for i in range(len(fields))))
    return np.asarray(sum(fields) / scale, np.float32)


def ridges(noise: Field, width: float) -> Field:
    """Turn smooth noise into thin branching lines along its zeros, as vessels look."""
    return smooth_step(np.float32(width) - np.abs(noise), width)
