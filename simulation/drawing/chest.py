"""Frontal chest radiographs: ribs, heart, vessels, and three kinds of lesion. Bright is dense (MONOCHROME2)."""

import numpy as np

from simulation.drawing.cast import Cast
from simulation.drawing.shapes import Field, column, ellipsoid, grid, ridges, smooth_step, spot, turbulence

LESIONS = ("normal", "consolidation", "nodule", "effusion")


def chest(cast: Cast, labels: np.ndarray, contrast: float) -> tuple[Field, Field]:
    """Draw one radiograph for each label (an index of ``LESIONS``) and its lesion field.

    Shapes: images and lesion fields (N, H, W), values about [0, 1]; a lesion field is 1 inside the lesion.
    ``contrast`` scales the brightness of the lesions: 1 is plain to see, 0.2 is hard.
    """
    y, x = cast.pose(grid(cast.shape), shift=0.07, scale=0.07, turn=0.06)
    dome = 0.62 + cast.person(-0.08, 0.08) - 0.16 * np.cos(2.8 * (np.abs(x) - 0.35)) + 0.05 * np.tanh(8 * x)
    lungs = lung_fields(cast, y, x) * smooth_step(dome - y, 0.08)
    lesions = np.maximum.reduce(
        [
            chosen(labels, 1, cast) * consolidation(cast, y, x, lungs),
            chosen(labels, 2, cast) * nodule(cast, y, x),
            chosen(labels, 3, cast) * effusion(cast, y, x, dome) * np.sqrt(lungs),
        ]
    )
    image = torso(cast, y, x, dome) + bones(cast, y, x, lungs) + airspace(cast, y, x, lungs)
    brightness = np.float32(contrast) * cast.image(0.05, 0.62)
    return (image + brightness * lesions).astype(np.float32), lesions.astype(np.float32)


def chosen(labels: np.ndarray, lesion: int, cast: Cast) -> Field:
    """Give 1 for the images that carry ``lesion`` and 0 for the others, shaped for drawing."""
    return column((labels == lesion).astype(np.float32), len(cast.shape))


def lung_fields(cast: Cast, y: Field, x: Field) -> Field:
    """Draw both lungs as squarish ellipses; their size belongs to the person."""
    height, width = cast.person(0.72, 0.9), cast.person(0.28, 0.36)
    left = ellipsoid((y - 0.02, x - 0.43), (height, width), 0.25, 2.5)
    right = ellipsoid((y - 0.02, x + 0.43), (height, width), 0.25, 2.5)
    return left + right


def torso(cast: Cast, y: Field, x: Field, dome: Field) -> Field:
    """Draw soft tissue, spine, the heart above the diaphragm, and the breasts' shadow."""
    body = ellipsoid((y - 0.6, x), (1.9, cast.person(0.92, 1.05)), 0.2, 3.5)
    spine = smooth_step(0.09 - np.abs(x), 0.06) * (0.1 + 0.02 * np.cos(24 * y))
    heart = ellipsoid((y - 0.3, x - 0.13), (cast.person(0.3, 0.4), cast.person(0.25, 0.36)), 0.5)
    heart = heart * smooth_step(dome + 0.08 - y, 0.1)
    haze = spot((y - 0.35, np.abs(x) - 0.45), (0.3, 0.25)) * cast.person(0, 0.08)
    return 0.06 + body * cast.image(0.52, 0.6) + spine + 0.16 * heart + haze


def bones(cast: Cast, y: Field, x: Field, lungs: Field) -> Field:
    """Draw ribs, which fall off to the sides, and the two clavicles."""
    phase = y * cast.person(4.2, 5.0) - 2.2 * (np.abs(x) - 0.1) ** 2 + cast.person(0, 1)
    ribs = smooth_step(np.cos(2 * np.pi * phase) - 0.45, 0.3) * (0.25 + 0.75 * lungs)
    clavicles = smooth_step(0.035 - np.abs(y + 0.72 + cast.image(-0.05, 0.05) - 0.22 * np.abs(x)), 0.03)
    return cast.image(0.03, 0.06) * ribs + 0.07 * clavicles * (np.abs(x) > 0.1)


def airspace(cast: Cast, y: Field, x: Field, lungs: Field) -> Field:
    """Darken the lungs and draw their vessels, which thin out away from the hilum, and fine texture."""
    fine = turbulence(cast.rng, cast.count, cast.shape, (7, 14, 28))
    vessels = ridges(fine, 0.35) * spot((y - 0.02, np.abs(x) - 0.22), (0.4, 0.28))
    patchy = turbulence(cast.rng, cast.count, cast.shape, (3, 6))
    return lungs * (cast.image(0.1, 0.14) * vessels + 0.025 * patchy - cast.person(0.3, 0.4)) + 0.012 * fine


def consolidation(cast: Cast, y: Field, x: Field, lungs: Field) -> Field:
    """Draw an ill-defined patchy opacity in one lung; its densest spot is 1."""
    centre_y, centre_x = cast.image(-0.35, 0.22), cast.side() * cast.image(0.32, 0.52)
    patch = spot((y - centre_y, x - centre_x), (cast.image(0.14, 0.3), cast.image(0.12, 0.24)))
    ragged = turbulence(cast.rng, cast.count, cast.shape, (5, 10, 20))
    patchy = np.clip(patch * (1.1 + 0.45 * ragged), 0, None) * lungs
    return np.asarray(patchy / patchy.max(axis=(1, 2), keepdims=True), np.float32)


def nodule(cast: Cast, y: Field, x: Field) -> Field:
    """Draw a round, sharp nodule in one lung."""
    centre_y, centre_x = cast.image(-0.45, 0.3), cast.side() * cast.image(0.3, 0.55)
    radius = cast.image(0.05, 0.1)
    return ellipsoid((y - centre_y, x - centre_x), (radius, radius * cast.image(0.8, 1.25)), 0.5)


def effusion(cast: Cast, y: Field, x: Field, dome: Field) -> Field:
    """Draw fluid that fills the lung's lower corner on one side and climbs along the chest wall."""
    side = cast.side()
    wall = np.clip(x * side - 0.35, -0.3, 0.5)
    level = dome - cast.image(0.08, 0.3) - 0.8 * wall
    return smooth_step(y - level, 0.1) * smooth_step(x * side - 0.08, 0.05)
