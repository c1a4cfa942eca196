"""Generated pictures that belong to nobody, with the factors that made them: the task of public pre-training.

A scene is a sum of four things every grey medical image has some of: fractal background (parenchyma), soft ellipses
(organs), a striped patch (ribs, muscle) and a hazy patch (opacity). The network learns to say how much of each is there
and where: factors of texture and shape, no disease, no person.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scenes:
    """A batch of generated pictures.

    Shapes: images (batch, 1, *size) float32, each with mean 0.5 and standard deviation 0.25; factors
    (batch, num_factors) float32, each roughly standardised; maps (batch, 3, *size) float32 in [0, 1]: ellipses,
    stripes, haze.
    """

    images: Floats
    factors: Floats
    maps: Floats


def generate_scenes(random: np.random.Generator, *, count: int, size: int, dimensions: int) -> Scenes:
    """Draw ``count`` scenes of ``size`` pixels a side; deterministic in the state of ``random``."""
    grid = _grid(size, dimensions)
    roughness = random.uniform(1.0, 4.0, count)
    background = _fractal(random, roughness, size=size, dimensions=dimensions)
    ellipses, number, sharpness = _ellipses(random, grid, count)
    stripes, stripe_map, direction = _stripes(random, grid, count)
    haze, haze_map, haze_strength = _haze(random, grid, count)
    weights = random.uniform(0.2, 1.0, (count, 1))
    flat = weights * background.reshape(count, -1) + ellipses + stripes + haze
    flat = flat + random.uniform(0.0, 0.3, (count, 1)) * random.standard_normal(flat.shape)
    flat = 0.5 + 0.25 * (flat - flat.mean(1, keepdims=True)) / (flat.std(1, keepdims=True) + 1e-6)
    shape = (count, 1, *(size,) * dimensions)
    factors = np.column_stack(
        (roughness - 2.5, number - 2.5, sharpness, direction, haze_strength, 4 * haze_map.mean(1), weights - 0.6)
    )
    maps = np.stack((_occupied(ellipses), stripe_map, haze_map), axis=1)
    return Scenes(
        flat.reshape(shape).astype(np.float32),
        factors.astype(np.float32),
        maps.reshape(count, 3, *shape[2:]).astype(np.float32),
    )


def num_factors(dimensions: int) -> int:
    """Return the length of a scene's factor vector."""
    return 6 + dimensions * (dimensions + 1) // 2


def _grid(size: int, dimensions: int) -> NDArray[np.float64]:
    """Positions in [-1, 1]: (size ** dimensions, dimensions)."""
    axis = np.linspace(-1.0, 1.0, size)
    return np.stack(np.meshgrid(*(axis,) * dimensions, indexing="ij"), axis=-1).reshape(-1, dimensions)


def _fractal(
    random: np.random.Generator, roughness: NDArray[np.float64], *, size: int, dimensions: int
) -> NDArray[np.float64]:
    """Noise whose power falls with frequency as f ** -roughness, each picture with standard deviation 1."""
    axes = tuple(range(1, dimensions + 1))
    white = np.fft.rfftn(random.standard_normal((len(roughness), *(size,) * dimensions)), axes=axes)
    frequencies = np.meshgrid(
        *(np.fft.fftfreq(size),) * (dimensions - 1), np.fft.rfftfreq(size), indexing="ij", sparse=True
    )
    radius = np.sqrt(sum(frequency**2 for frequency in frequencies))
    radius.flat[0] = 1.0 / size
    falloff = radius[None] ** (-roughness.reshape(-1, *(1,) * dimensions) / 2)
    noise = np.fft.irfftn(white * falloff, s=(size,) * dimensions, axes=axes)
    return np.asarray(noise / noise.std(axes, keepdims=True))


def _ellipses(
    random: np.random.Generator, grid: NDArray[np.float64], count: int, *, most: int = 5
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Soft ellipses of one edge sharpness a picture; returns the sum, how many, and the log sharpness."""
    dimensions = grid.shape[1]
    number = random.integers(0, most + 1, count)
    sharpness = random.uniform(0.7, 3.0, count)
    total = np.zeros((count, len(grid)))
    for index in range(most):
        centre = random.uniform(-0.7, 0.7, (count, 1, dimensions))
        radii = random.uniform(0.15, 0.7, (count, 1, dimensions))
        height = random.uniform(0.7, 2.0, count) * random.choice((-1.0, 1.0), count) * (index < number)
        distance = np.sqrt((((grid[None] - centre) / radii) ** 2).sum(2))
        edge = np.clip((distance - 1.0) * np.exp(sharpness)[:, None], -30, 30)
        total += height[:, None] / (1.0 + np.exp(edge))
    return total, number.astype(np.float64), sharpness - 1.85


def _stripes(
    random: np.random.Generator, grid: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Waves under a soft window; returns them, the window, and strength times the products of their direction.

    The products u_i u_j name an axis without a sign, as an angle modulo 180 degrees does.
    """
    dimensions = grid.shape[1]
    direction = random.standard_normal((count, dimensions))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    cycles = random.uniform(1.5, 5.0, count)
    strength = random.uniform(0.3, 1.5, count) * (random.random(count) < 0.5)
    window = _window(random, grid, count, low=0.4, high=1.2)
    phase = 2 * math.pi * random.random((count, 1))
    waves = np.sin(math.pi * cycles[:, None] * (direction @ grid.T) + phase)
    rows, columns = np.triu_indices(dimensions)
    products = strength[:, None] * direction[:, rows] * direction[:, columns]
    occupied = window * (strength > 0)[:, None]
    return strength[:, None] * window * waves, occupied, 2 * products


def _haze(
    random: np.random.Generator, grid: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Bright patches without an edge; returns them, where they are, and how strong."""
    strength = random.uniform(0.4, 2.0, count) * (random.random(count) < 0.5)
    window = _window(random, grid, count, low=0.2, high=0.7)
    return strength[:, None] * window, window * (strength > 0)[:, None], strength - 0.6


def _window(
    random: np.random.Generator, grid: NDArray[np.float64], count: int, *, low: float, high: float
) -> NDArray[np.float64]:
    """A Gaussian bump a picture: (count, positions) in [0, 1]."""
    dimensions = grid.shape[1]
    centre = random.uniform(-0.8, 0.8, (count, 1, dimensions))
    radii = random.uniform(low, high, (count, 1, dimensions))
    return np.asarray(np.exp(-0.5 * (((grid[None] - centre) / radii) ** 2).sum(2)))


def _occupied(ellipses: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(np.abs(ellipses), 0.0, 1.0)
