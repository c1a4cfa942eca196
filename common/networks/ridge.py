"""Ridge regression of labels on features from two released sums: post-processing, so it costs no privacy.

    x = (features, b) / max(1, |features, b|)            b = 1/8, a constant feature: the intercept
    S = sum over unlabelled patients of x x'             one triangle travels, with sqrt(2) beside its diagonal
    R = sum over labelled patients of x t'               t: the label, centred and of norm at most 1

    W = (S+ / n_u + l I)^-1 R / n_l                      S+ the positive part of the noised S

Both triangle and x t' then have a norm of at most 1, so each patient's clip does nothing and no learning rate is left
to choose. l follows from public numbers alone:

    l = width(S) / n_u  +  4 (length(R) / n_l)^2  +  1 / n_l

width(S) = sqrt(2 F) s_u: the largest eigenvalue of a triangle that is noise alone (Wigner). length(R) = s_l sqrt(F): a
column of R that is noise alone; squared, because a ridge takes away what is noise among variances. 1 / n_l: for having
drawn these labelled patients and no others. The 4 was chosen on validation draws of two sets and held on a third
(docs/results.md). Source: Vu & Slavkovic 2009, Wang 2018 (AdaSSP), here with S from patients without a label. Knows
nothing of PyTorch: plans are read with it.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

INTERCEPT: Final = 0.125
MOST_FEATURES: Final = 4096  # 8.4 M numbers of one triangle
OF_NOISE: Final = 4.0
OF_DRAWING: Final = 1.0
MOST_EXPLAINED: Final = 0.9  # of the labels' variance, as far as logits believe it
LEAST_SIGNAL: Final = 0.1  # of what R seems to explain: the rest may be its noise
KEPT_BITS: Final = 18  # of the largest weight: what lies below differs from one processor's eigenvectors to another's

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """What a ridge phase released, in patients.

    triangle: ((F + 1)(F + 2) / 2,), cross: ((F + 1) K,); unlabelled, labelled: patients expected in the sums, public;
    triangle_noise, cross_noise: standard deviation of the noise in a coordinate; 0 without privacy.
    """

    triangle: Vector
    cross: Vector
    unlabelled: float
    labelled: float
    triangle_noise: float
    cross_noise: float


def triangle_length(features: int) -> int:
    """Return the numbers of one triangle, the intercept's included."""
    return (features + 1) * (features + 2) // 2


def moments_length(features: int, classes: int) -> int:
    """Return the numbers of a ridge phase's sum: one triangle, then features (and intercept) times classes."""
    return triangle_length(features) + (features + 1) * classes


def label_norm(classes: int, *, several: bool) -> float:
    """Return the norm of a centred label before it is divided by it: y - 1 / K, or y - 1 / 2 of each of K labels."""
    return math.sqrt(classes) / 2 if several else math.sqrt(1 - 1 / classes)


def ridge_head(moments: Moments, *, classes: int, several: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight (classes, F) and bias (classes,) of a linear head on features, float32.

    Guarantee: finite for finite moments; the same bits on every processor but where a weight lies within 1e-10 of the
    middle between two steps of 2^-18 of the largest.
    """
    rows = len(moments.cross) // classes
    covariance = _symmetric(moments.triangle, rows) / max(1.0, moments.unlabelled)
    labelled, norm = max(1.0, moments.labelled), label_norm(classes, several=several)
    cross = moments.cross.reshape(rows, classes) * (norm / labelled)
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, 0.0)
    noise = moments.cross_noise * norm / labelled
    shrunk = values + _ridge(moments, rows, labelled=labelled, noise=noise)
    weights = vectors @ ((vectors.T @ cross) / shrunk[:, None])
    signal = float((weights * cross).sum())
    found = max(signal - classes * noise**2 * float((1 / shrunk).sum()), LEAST_SIGNAL * signal)
    spread = float((values[:, None] * (vectors.T @ weights) ** 2).sum())
    weights = _rounded(weights * _logits_per_score(found, spread, classes, several=several))
    return weights[:-1].T.astype(np.float32), (weights[-1] * INTERCEPT).astype(np.float32)


def _ridge(moments: Moments, rows: int, *, labelled: float, noise: float) -> float:
    """Return l, from public numbers alone."""
    width = math.sqrt(2 * rows) * moments.triangle_noise / max(1.0, moments.unlabelled)
    return width + OF_NOISE * rows * noise**2 + OF_DRAWING / labelled


def _logits_per_score(signal: float, spread: float, classes: int, *, several: bool) -> float:
    """Return the factor from regression scores to logits: least squares first, then as of two normal classes.

    A regression on labels of two normal classes points where the logarithm of their odds does; the factor is the
    inverse of the variance that it leaves (Fisher 1936).
    """
    if not (signal > 0 and spread > 0):
        return 1.0
    slope = signal / spread
    variance = classes / 4 if several else 1 - 1 / classes
    left = 1 - min(MOST_EXPLAINED, slope * signal / variance)
    return float(np.clip(slope * (4 if several else classes) / left, 1e-3, 1e6))


def _symmetric(triangle: Vector, rows: int) -> Vector:
    """Return the whole matrix (rows, rows) of a triangle whose values beside the diagonal carry sqrt(2)."""
    upper = np.zeros((rows, rows))
    upper[np.triu_indices(rows)] = triangle
    half = upper / math.sqrt(2)
    np.fill_diagonal(half, upper.diagonal() / 2)
    whole: Vector = half + half.T
    return whole


def _rounded(weights: Vector) -> Vector:
    largest = float(np.abs(weights).max())
    if largest == 0.0:
        return weights
    step = 2.0 ** (math.ceil(math.log2(largest)) - KEPT_BITS)
    rounded: Vector = np.rint(weights / step) * step
    return rounded
