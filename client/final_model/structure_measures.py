"""How well a mask fits the expert's, in the measures of the field: boundaries in mm, volumes, lesions one by one.

Definitions (A: answer, T: expert; S: voxels of a mask with one of their six, in 2-D four, neighbours outside of it):

    HD95              max of the 95th percentiles of d(a, S_T), a in S_A, and of d(t, S_A), t in S_T
    surface Dice      share of S_A and S_T together that lies within a tolerance of the other (Nikolov et al. 2021)
    volume error      (|A| - |T|) in ml; in 2-D in pixels
    lesions found     of the connected parts of T (touching by a corner counts), those that A meets anywhere
    false lesions     connected parts of A that meet no part of T

HD95 is as MONAI's and surface Dice as MONAI's without sub-voxels (a test compares them).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
PERCENTILE: Final = 95.0
LEAST_TOLERANCE_MM: Final = 2.0


@dataclass(frozen=True, slots=True)
class Measures:
    """One structure in one scan. None where a measure has no meaning: neither, or only one, has the structure.

    ``hd95_mm`` and the tolerance are in pixels where the images have no spacing.
    """

    hd95_mm: float | None
    surface_dice: float | None
    volume_error_ml: float
    volume_ml: float
    lesions: int = 0
    lesions_found: int = 0
    false_lesions: int = 0


def tolerance_mm(spacing_mm: Sequence[float]) -> float:
    """Return within what distance surfaces count as one: 2 mm, on coarser grids a voxel's longest side; 1 in pixels."""
    return max(LEAST_TOLERANCE_MM, *spacing_mm) if spacing_mm else 1.0


def measured(answer: Mask, expert: Mask, spacing_mm: Sequence[float], *, is_lesion: bool = False) -> Measures | None:
    """Compare the masks of one structure in one scan; None where neither has it.

    Shapes: answer, expert (*size). ``spacing_mm``: of the voxels, empty: unknown (pixels). Source: the module's words.
    """
    if not answer.any() and not expert.any():
        return None
    steps = tuple(spacing_mm) or (1.0,) * answer.ndim
    voxel = math.prod(steps) / 1000 if answer.ndim == 3 and spacing_mm else 1.0
    size = float(expert.sum()) * voxel
    error = float(answer.sum()) * voxel - size
    counted = _lesions(answer, expert) if is_lesion else (0, 0, 0)
    if not answer.any() or not expert.any():
        return Measures(None, 0.0, error, size, *counted)
    window = _window(answer | expert)
    ours, theirs = _surface(answer[window]), _surface(expert[window])
    to_theirs, to_ours = _distances(theirs, steps)[ours], _distances(ours, steps)[theirs]
    hd95 = max(float(np.percentile(one, PERCENTILE)) for one in (to_theirs, to_ours))
    close = sum(int((one <= tolerance_mm(spacing_mm)).sum()) for one in (to_theirs, to_ours))
    return Measures(hd95, close / (len(to_theirs) + len(to_ours)), error, size, *counted)


def _window(mask: Mask) -> tuple[slice, ...]:
    """Return the box of a mask, with a voxel of background around it where there is one: most of a volume is empty."""
    found = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        places = np.flatnonzero(mask.any(axis=others))
        found.append(slice(max(0, int(places[0]) - 1), int(places[-1]) + 2))
    return tuple(found)


def _surface(mask: Mask) -> Mask:
    ndimage = _ndimage()
    inner: Mask = ndimage.binary_erosion(mask)  # beyond the scan is outside
    return mask & ~inner


def _distances(surface: Mask, spacing: Sequence[float]) -> npt.NDArray[np.float64]:
    distances: npt.NDArray[np.float64] = _ndimage().distance_transform_edt(~surface, sampling=spacing)
    return distances


def _lesions(answer: Mask, expert: Mask) -> tuple[int, int, int]:
    """Return how many lesions the expert drew, how many of them the answer meets, and how many it made up."""
    ndimage = _ndimage()
    touching = np.ones((3,) * expert.ndim, bool)
    drawn, count = ndimage.label(expert, touching)
    answered, ours = ndimage.label(answer, touching)
    found = len(np.unique(drawn[answer & expert]))
    real = len(np.unique(answered[answer & expert]))
    return int(count), found, int(ours) - real


def _ndimage() -> Any:
    """Return SciPy's image functions, imported where they are used: it takes half a second."""
    from scipy import ndimage  # noqa: PLC0415

    return ndimage


@dataclass(frozen=True, slots=True)
class StructureFigures:
    """One structure over several scans; a figure is None where no scan gives it one.

    ``volume_error_ml``: mean of the error without its sign; ``volume_bias_ml``: with it; ``volume_error_share``: of the
    expert's volume. ``lesions``: drawn by experts, in all. 2-D: pixels in place of ml; without spacing: of mm, too.
    """

    scans: int
    hd95_mm: float | None
    surface_dice: float | None
    tolerance_mm: float
    volume_error_ml: float | None
    volume_bias_ml: float | None
    volume_error_share: float | None
    lesions: int = 0
    lesion_sensitivity: float | None = None
    false_lesions_per_scan: float | None = None


def figures_of(found: Sequence[Measures], spacing_mm: Sequence[float], *, is_lesion: bool = False) -> StructureFigures:
    """Average the measures of one structure over scans."""
    known = [one for one in found if one.volume_ml > 0]
    lesions = sum(one.lesions for one in found)
    return StructureFigures(
        scans=len(found),
        hd95_mm=_mean([one.hd95_mm for one in found if one.hd95_mm is not None]),
        surface_dice=_mean([one.surface_dice for one in found if one.surface_dice is not None]),
        tolerance_mm=tolerance_mm(spacing_mm),
        volume_error_ml=_mean([abs(one.volume_error_ml) for one in found]),
        volume_bias_ml=_mean([one.volume_error_ml for one in found]),
        volume_error_share=_mean([abs(one.volume_error_ml) / one.volume_ml for one in known]),
        lesions=lesions,
        lesion_sensitivity=sum(one.lesions_found for one in found) / lesions if lesions else None,
        false_lesions_per_scan=_mean([one.false_lesions for one in found]) if is_lesion else None,
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
