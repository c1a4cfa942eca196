"""A model's quality on a test set, with its 95 % interval: AUC (DeLong), shares (Wilson), the rest by bootstrap."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.privacy.intervals import NORMAL_95, wilson_bounds
from simulation.report.facts import Estimate

Floats = NDArray[np.float64]

RESAMPLES: Final = 1000
SEED: Final = 20261120  # of the bootstrap: the same test set gives the same interval


def auc_estimate(scores: Floats, is_positive: NDArray[np.bool_]) -> Estimate:
    """Return the AUC with DeLong's interval, computed on the logit so that it stays within (0, 1).

        V10_i = P(score of positive i beats a negative),  V01_j = P(positive beats score of negative j)
        AUC = mean V10,   var = S10 / m + S01 / n          S: sample variances over m positives, n negatives

    Shapes: scores, is_positive (images,). Raises: ValueError unless both classes have two images.
    Source: DeLong, DeLong and Clarke-Pearson 1988; logit interval: Pepe 2003, section 5.2.
    """
    positives, negatives = scores[is_positive], scores[~is_positive]
    if min(len(positives), len(negatives)) < 2:
        raise ValueError("an AUC needs at least two images of each class")
    wins, losses = _shares_below(negatives, positives), 1 - _shares_below(positives, negatives)
    area = float(wins.mean())
    variance = float(wins.var(ddof=1) / len(positives) + losses.var(ddof=1) / len(negatives))
    if not 0 < area < 1 or variance == 0:
        return Estimate(area, area, area)
    centre, reach = math.log(area / (1 - area)), NORMAL_95 * math.sqrt(variance) / (area * (1 - area))
    return Estimate(area, _expit(centre - reach), _expit(centre + reach))


def share_estimate(right: float, total: float, *, noise_variance: float = 0.0) -> Estimate:
    """Return the share ``right / total`` with Wilson's 95 % interval, within [0, 1].

    ``noise_variance``: of the share itself, where noise was added to the counts; it widens the interval in quadrature.
    Noise can take a share out of [0, 1]; it is put back. Raises: ValueError unless total is above 0.
    Source: ``common.privacy.intervals.wilson_bounds``.
    """
    if total <= 0:
        raise ValueError(f"a share of {total} is none")
    share = min(max(right / total, 0.0), 1.0)
    return Estimate(share, *wilson_bounds(share, total, noise_variance=noise_variance))


def bootstrap_estimate(measure: Callable[[NDArray[np.intp]], float], images: int) -> Estimate:
    """Return ``measure`` of all images with the percentile interval over ``RESAMPLES`` resampled sets.

    ``measure`` takes the indices of the images in a set; NaN (a class is missing) is left out. Source: Efron 1979.
    """
    rng = np.random.default_rng(SEED)
    values = [measure(rng.integers(0, images, images)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Estimate(measure(np.arange(images)), float(low), float(high))


def roc_curve(scores: Floats, is_positive: NDArray[np.bool_], points: int = 101) -> list[tuple[float, float]]:
    """Return (false positive rate, true positive rate) at ``points`` evenly spaced false positive rates."""
    negatives, positives = np.sort(scores[~is_positive]), np.sort(scores[is_positive])
    curve = []
    for wanted in np.linspace(0, 1, points):
        threshold = np.quantile(negatives, 1 - wanted, method="higher")
        curve.append((float((negatives >= threshold).mean()), float((positives >= threshold).mean())))
    return curve


def calibration_curve(
    confidence: Floats, is_right: NDArray[np.bool_], bins: int = 10
) -> list[tuple[float, float, float]]:
    """Return (mean confidence, share answered right, images) for each of ``bins`` equal bins that has images."""
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return [
        (float(confidence[place == one].mean()), float(is_right[place == one].mean()), float((place == one).sum()))
        for one in range(bins)
        if (place == one).any()
    ]


def _shares_below(references: Floats, values: Floats) -> Floats:
    """Return for each value the share of ``references`` below it, ties counted half: (len(values),)."""
    ordered = np.sort(references)
    below, upto = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    shares: Floats = (below + upto) / (2 * len(ordered))
    return shares


def _expit(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
