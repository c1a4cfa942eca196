"""Generated scans with known lesions: chest radiographs, chest CT and head MR, as images and as volumes.

They need no data and no licence, every lesion is known to the pixel, and one number, ``difficulty``, says how hard the
task is. They are for demonstrations, tests and public pre-training; results on them say nothing about medicine.
Deterministic: the same generator state gives the same images. Randomness here is simulated patients, never a secret.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation.drawing import axial, chest
from simulation.drawing.cast import Cast
from simulation.drawing.scanners import REFERENCE, Scanner, photograph
from simulation.drawing.shapes import Field

Labels = NDArray[np.int64]
Segmentation = NDArray[np.uint8]

CHUNK_PIXELS = 1 << 18  # images drawn at a time: their fields stay in the processor's cache


class PhantomKind(StrEnum):
    """What is drawn: the value is what the command line takes."""

    XRAY = "xray"
    CT = "ct"
    MR = "mr"


ARTISTS = {PhantomKind.XRAY: chest.chest, PhantomKind.CT: axial.ct, PhantomKind.MR: axial.mr}
CLASSES = {PhantomKind.XRAY: chest.LESIONS, PhantomKind.CT: axial.LESIONS, PhantomKind.MR: axial.LESIONS}


def render(
    kind: PhantomKind | str,
    labels: ArrayLike,
    rng: np.random.Generator,
    size_px: int = 64,
    scanner: Scanner = REFERENCE,
    *,
    difficulty: float = 1.0,
    patients: ArrayLike | None = None,
) -> Field:
    """Draw one square image for each label; see ``render_segmented`` for the arguments.

    Shapes: labels (N,) indices of ``CLASSES[kind]``; result (N, size_px, size_px) float32 in [0, 1], dense is bright
    (CT: the fixed window [-1024, 1024] HU).
    """
    shape = (size_px, size_px)
    return render_segmented(kind, labels, rng, shape, scanner, difficulty=difficulty, patients=patients)[0]


def render_segmented(
    kind: PhantomKind | str,
    labels: ArrayLike,
    rng: np.random.Generator,
    shape: Sequence[int],
    scanner: Scanner = REFERENCE,
    *,
    difficulty: float = 1.0,
    patients: ArrayLike | None = None,
) -> tuple[Field, Segmentation]:
    """Draw one image (``shape`` = H, W) or volume (D, H, W; CT and MR only) for each label, with its lesion.

    ``patients`` (N,): index of the patient of each image; images of one patient share their anatomy (default: all
    different). ``difficulty`` divides the lesions' contrast: at 1 a small network finds them, at 4 hardly.
    Returns: images (N, *shape) float32 in [0, 1]; segmentations (N, *shape) uint8, 1 inside the lesion. At
    difficulty 1 a lesion covers at least one pixel at 32 px and above.
    Raises: ValueError for a label or shape that this kind does not have.
    """
    kind, chosen = PhantomKind(kind), np.asarray(labels, np.int64)
    people = np.arange(len(chosen)) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    check_request(kind, chosen, shape, difficulty)
    images = np.empty((len(chosen), *shape), np.float32)
    segmentations = np.empty(images.shape, np.uint8)
    for part in parts(people, max(1, CHUNK_PIXELS // int(np.prod(shape)))):
        cast = Cast(rng, people[part] - people[part].min(), shape)
        drawn, lesions = ARTISTS[kind](cast, chosen[part], 1 / difficulty)
        images[part] = photograph(drawn, scanner, rng)
        segmentations[part] = lesions > 0.5
    return images, segmentations


def check_request(kind: PhantomKind, labels: Labels, shape: Sequence[int], difficulty: float) -> None:
    """Refuse labels, shapes and difficulties that cannot be drawn (ValueError)."""
    if labels.ndim != 1 or (len(labels) and not 0 <= labels.min() <= labels.max() < len(CLASSES[kind])):
        raise ValueError(f"labels must be a list of numbers from 0 to {len(CLASSES[kind]) - 1} for {kind}")
    if len(shape) not in ((2,) if kind is PhantomKind.XRAY else (2, 3)) or min(shape) < 8:
        raise ValueError(f"{kind} cannot be drawn in the shape {tuple(shape)}; every side needs at least 8 pixels")
    if not difficulty > 0:
        raise ValueError(f"difficulty must be above 0, not {difficulty}")


def parts(people: NDArray[np.integer], at_most: int) -> list[slice]:
    """Cut the images into runs of about ``at_most`` that never part the images of one patient.

    Images of one patient must stand side by side (ValueError otherwise).
    """
    if np.any(np.diff(people) < 0):
        raise ValueError("the images of one patient must stand side by side: sort by patient first")
    starts = [0]
    for first in np.flatnonzero(np.diff(people)) + 1:
        if first - starts[-1] >= at_most:
            starts.append(int(first))
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(people)], strict=True) if stop > start]
