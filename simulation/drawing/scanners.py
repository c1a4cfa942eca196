"""What a scanner does to the picture of the same anatomy, so that hospitals differ as real ones do.

The order is that of the machine: blur (detector), gain and shift (calibration), gamma (processing), noise.
"""

from dataclasses import dataclass

import numpy as np

from simulation.drawing.shapes import Field


@dataclass(frozen=True, slots=True)
class Scanner:
    """One make of scanner: its look, and how its files are written.

    gain and shift act on intensities in [0, 1]; ``noise_stddev`` is in the same unit; ``blur_px`` is the standard
    deviation of a Gaussian. ``monochrome1`` and ``syntax`` (a name of ``simulation.hospitals.dicom_syntaxes``) matter
    for DICOM.
    """

    maker: str = "Reference"
    model: str = "R1"
    gain: float = 1.0
    shift: float = 0.0
    gamma: float = 1.0
    noise_stddev: float = 0.02
    blur_px: float = 0.0
    monochrome1: bool = False
    syntax: str = "explicit"


REFERENCE = Scanner()

# Six makes, far enough apart that a network trained on one of them notices the others.
SCANNERS = (
    REFERENCE,
    Scanner("Northlight", "NX 200", 0.85, 0.08, 1.0, 0.03, 0.6, syntax="rle"),
    Scanner("Aurelia", "Thorax", 1.0, -0.03, 0.8, 0.02, 0.0, monochrome1=True, syntax="jpeg_ls"),
    Scanner("Kestrel", "K-9", 1.15, -0.05, 1.2, 0.04, 0.4, syntax="jpeg_lossless"),
    Scanner("Miyazu", "DR-5", 0.9, 0.05, 1.1, 0.015, 0.9, monochrome1=True, syntax="implicit"),
    Scanner("Old Faithful", "CR 1999", 0.75, 0.15, 0.9, 0.06, 1.2, syntax="jpeg_2000"),
)


def scanner_of_site(index: int) -> Scanner:
    """Give hospital ``index`` (from 0) its scanner; after the last make the first comes again."""
    return SCANNERS[index % len(SCANNERS)]


def photograph(images: Field, scanner: Scanner, rng: np.random.Generator) -> Field:
    """Apply ``scanner`` to clean images (N, ..., H, W) in [0, 1]; the result has the same shape and range."""
    seen = blur(images, scanner.blur_px) if scanner.blur_px else images
    seen = np.clip(seen * np.float32(scanner.gain) + np.float32(scanner.shift), 0, 1)
    if scanner.gamma != 1:
        seen = seen ** np.float32(scanner.gamma)
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    noise *= np.float32(scanner.noise_stddev)
    noise += seen
    return np.clip(noise, 0, 1, out=noise)


def blur(images: Field, stddev_px: float) -> Field:
    """Blur the last two axes with a Gaussian; edges repeat the outermost pixel."""
    radius = max(1, int(np.ceil(2.5 * stddev_px)))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / stddev_px) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (-2, -1):
        width = [(0, 0)] * images.ndim
        width[axis] = (radius, radius)
        padded, length = np.pad(images, width, mode="edge"), images.shape[axis]
        parts = (w * np.take(padded, range(i, i + length), axis) for i, w in enumerate(weights))
        images = np.asarray(sum(parts), np.float32)
    return images
