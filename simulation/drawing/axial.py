"""Axial CT of the chest and MR of the head, as single slices or whole volumes.

Both functions draw on any grid with the axes (..., y, x): with a leading z axis they give volumes (feet to head), and
without it slices at a random height. CT is drawn in HU and mapped by the fixed window [-1024, 1024] to [0, 1]; MR has
no unit and is drawn in [0, 1] directly.
"""

import numpy as np

from simulation.drawing.cast import Cast
from simulation.drawing.shapes import Field, column, ellipsoid, grid, ridges, smooth_step, spot, turbulence

LESIONS = ("normal", "lesion")
HU_LOWEST = -1024
HU_RANGE = 2048


def ct(cast: Cast, labels: np.ndarray, contrast: float) -> tuple[Field, Field]:
    """Draw chest CT with (label 1) or without (0) one lung nodule of solid or ground-glass density.

    Shapes: images and lesion fields (N, [D,] H, W) float32; images in the fixed window, see the module.
    """
    z, y, x = axes(cast)
    body = (cast.person(0.62, 0.74), cast.person(0.84, 0.94))
    lungs = lung_pair(cast, z, y, x)
    side, depth = cast.side(), cast.image(-0.22, 0.22)
    radius = cast.image(0.07, 0.14)
    nodule = ellipsoid(
        (z - nodule_height(cast, z), y - depth, x - side * cast.image(0.3, 0.46)), radii(cast, radius), 0.4
    )
    nodule = nodule * column((labels == 1).astype(np.float32), len(cast.shape))
    hounsfield = tissue(cast, z, y, x, body) * (1 - lungs) + parenchyma(cast, z, y, x) * lungs
    density = np.float32(contrast) * cast.image(150, 1200) * (1 - 0.9 * (1 - lungs))
    return window(hounsfield + density * nodule), nodule.astype(np.float32)


def mr(cast: Cast, labels: np.ndarray, contrast: float) -> tuple[Field, Field]:
    """Draw a head MR (T2-like) with (label 1) or without (0) one bright lesion in the white matter.

    Shapes: images and lesion fields (N, [D,] H, W) float32 in about [0, 1].
    """
    z, y, x = axes(cast)
    long, wide = cast.person(0.78, 0.88), cast.person(0.62, 0.72)
    head = ellipsoid((z, y, x), (1.0, long, wide), 0.08)
    brain = ellipsoid((z, y, x), (0.9, long * 0.87, wide * 0.85), 0.06)
    folds = turbulence(cast.rng, cast.count, cast.shape, (9, 18))
    white = ellipsoid((z, y, x), (0.75, long * 0.68, wide * 0.66), 0.5) * smooth_step(folds + 1.2, 0.8)
    horns = ellipsoid((z, y - 0.05, np.abs(x) - 0.12 - 0.25 * np.abs(y)), (0.4, cast.person(0.2, 0.32), 0.07), 0.5)
    radius = cast.image(0.06, 0.13)
    centre = (z - nodule_height(cast, z), y - cast.image(-0.35, 0.35), x - cast.side() * cast.image(0.22, 0.38))
    lesion = ellipsoid(centre, radii(cast, radius), 0.5)
    lesion = lesion * column((labels == 1).astype(np.float32), len(cast.shape))
    image = 0.5 * head - 0.42 * ellipsoid((z, y, x), (0.95, long * 0.94, wide * 0.93), 0.05) + 0.42 * brain
    image = image - 0.16 * white + 0.4 * horns * brain + 0.05 * ridges(folds, 0.5) * brain + 0.02 * folds * head
    image = image + np.float32(contrast) * cast.image(0.03, 0.45) * lesion * brain
    coil = 1 + cast.image(-0.2, 0.2) * x + cast.image(-0.2, 0.2) * y
    return (image * coil).astype(np.float32), (lesion * (brain > 0.5)).astype(np.float32)


def axes(cast: Cast) -> tuple[Field, Field, Field]:
    """Give posed z, y and x; without a z axis each image lies at its own height."""
    posed = cast.pose(grid(cast.shape), shift=0.05, scale=0.05, turn=0.08)
    z = posed[0] if len(cast.shape) == 3 else cast.image(-0.45, 0.45)
    return z, posed[-2], posed[-1]


def radii(cast: Cast, radius: Field) -> list[Field]:
    """Give a lesion's radii along z, y and x: slightly oval, and never thinner than one voxel, so that it shows."""
    voxels = [2 / length for length in cast.shape]
    least = voxels if len(voxels) == 3 else [0, *voxels]
    return [np.maximum(radius * cast.image(0.85, 1.2), side) for side in least]


def nodule_height(cast: Cast, z: Field) -> Field:
    """Choose the height of a lesion: anywhere in a volume, within the slice when there is only one."""
    return cast.image(-0.4, 0.4) if len(cast.shape) == 3 else z + cast.image(-0.03, 0.03)


def lung_pair(cast: Cast, z: Field, y: Field, x: Field) -> Field:
    """Draw both lungs, narrower towards the top, with the heart pressing into the left one."""
    tall, deep, wide = cast.person(0.85, 1.0), cast.person(0.42, 0.52), cast.person(0.27, 0.33)
    pair = ellipsoid((z, y + 0.04, np.abs(x) - 0.39), (tall, deep, wide), 0.12, 2.4)
    heart = ellipsoid((z + 0.25, y + 0.18, x - 0.12), (0.55, 0.3, cast.person(0.26, 0.34)), 0.1)
    return np.asarray(pair * (1 - heart))


def tissue(cast: Cast, z: Field, y: Field, x: Field, body: tuple[Field, Field]) -> Field:
    """Draw everything but the lungs in HU: air outside, fat rim, muscle, spine, ribs, vessels' contrast."""
    skin = ellipsoid((y, x), body, 0.03)
    muscle = ellipsoid((y, x), (body[0] * cast.person(0.86, 0.95), body[1] * cast.person(0.86, 0.95)), 0.06)
    spine = spot((y - 0.42, x), (0.08, 0.09)) * (280 + 80 * np.cos(20 * z))
    ring = spot((np.hypot(y / body[0], x / body[1]) - 0.84,), (0.04,))
    ribs = ring * smooth_step(np.cos(9 * np.arctan2(y, x) + 8 * z + cast.person(0, 6)) - 0.3, 0.3)
    aorta = spot((y - 0.22, x - 0.1), (0.07, 0.07)) * cast.image(0, 120)
    grain = turbulence(cast.rng, cast.count, cast.shape, (12, 24)) * 12
    return np.asarray(-1000 + 900 * skin + 140 * muscle + spine + 350 * ribs + aorta + grain)


def parenchyma(cast: Cast, z: Field, y: Field, x: Field) -> Field:
    """Draw lung tissue in HU: about -850 with vessels that thin out to the sides; emphysema belongs to the person."""
    fine = turbulence(cast.rng, cast.count, cast.shape, (8, 16))
    near = spot((z, y, np.abs(x) - 0.2), (0.6, 0.3, 0.2))
    return -870 + cast.person(-50, 60) + ridges(fine, 0.3) * near * 500 + 25 * fine


def window(hounsfield: Field) -> Field:
    """Map HU by the fixed window [-1024, 1024] to [0, 1]; values outside are clipped."""
    return np.asarray(np.clip((hounsfield - HU_LOWEST) / HU_RANGE, 0, 1), np.float32)
