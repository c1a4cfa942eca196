"""Private heads on frozen features, in numpy: one image is one patient, strata disjoint, each with the whole epsilon.

What counts for privacy is the program's own: the accountant, the closed form of ``standardise``, the solver of
``ridge``, the number of head steps from public numbers. Clip and Gaussian noise are the mechanism's without its lattice
(rounding adds a millionth), and every step takes every patient. Nothing is chosen for a cell: the learning rate and
the clip of a head stand here, its steps follow from ``head_steps``.

    sum over releases of 1 / sigma_i^2 = 1 / sigma_1^2(epsilon, delta)          full-batch Gaussian releases compose so
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from common.networks.ridge import INTERCEPT, Moments, label_norm, ridge_head
from common.networks.standardisation import standardised
from common.plan.head_steps import head_steps
from common.privacy.accounting import noise_multiplier_for
from simulation.experiments.feature_sets import Classes, Floats

DELTA: Final = 1e-5
LEARNING_RATE, CLIP, BIAS = 12.0, 0.5, 1.0
STANDARDISE_ROUNDS, STANDARDISE_CLIP = 3, 2.0
CENTRED_SHARE: Final = 0.25  # of the labelled patients' budget, where they standardise themselves
RIDGE_STANDARDISES: Final = 0.3  # of the unlabelled patients' budget
PSEUDO_LABELS: Final = 0.3
MANY_STEPS: Final = 40
AVERAGED_FROM: Final = 0.5

Doubles = NDArray[np.float64]
Scores = Callable[[Floats], Doubles]


@dataclass(frozen=True)
class Draw:
    """One draw of the labels. features (n, F) layer-normed; labelled, unlabelled: rows of either stratum."""

    features: Floats
    classes: Classes
    class_count: int
    labelled: NDArray[np.int64]
    unlabelled: NDArray[np.int64]
    epsilon: float
    random: np.random.Generator

    @property
    def one_release(self) -> float:
        """Noise multiplier of one release that takes the whole budget; 0 without privacy."""
        return one_release(self.epsilon)


@functools.cache
def one_release(epsilon: float) -> float:
    """Return sigma of one full-batch release at ``epsilon``; 0 for infinity."""
    if math.isinf(epsilon):
        return 0.0
    return noise_multiplier_for(epsilon=epsilon, delta=DELTA, sampling_rate=1.0, steps=1)


def supervised_head(draw: Draw) -> Scores:
    """Labelled patients alone teach a head on features as they are."""
    return _head(draw, lambda features: features, steps=_steps(draw), noise=draw.one_release)


def centred_head(draw: Draw) -> Scores:
    """Labelled patients spend a quarter of their budget on standardising the features first."""
    scaled = _standardise(draw, draw.labelled, share=CENTRED_SHARE)
    return _head(draw, scaled, steps=_steps(draw), noise=draw.one_release / math.sqrt(1 - CENTRED_SHARE))


def standardise_head(draw: Draw) -> Scores:
    """Unlabelled patients standardise, labelled ones teach a head in as many steps as the rule says."""
    return _head(draw, _standardise(draw, draw.unlabelled, share=1.0), steps=_steps(draw), noise=draw.one_release)


def standardise_head_40(draw: Draw) -> Scores:
    """The same in forty steps, whatever the budget."""
    return _head(draw, _standardise(draw, draw.unlabelled, share=1.0), steps=MANY_STEPS, noise=draw.one_release)


def ridge(draw: Draw) -> Scores:
    """Unlabelled patients standardise and give second moments, labelled ones products with labels, each once."""
    scaled = _standardise(draw, draw.unlabelled, share=RIDGE_STANDARDISES)
    triangle = _triangle(draw, scaled, share=1 - RIDGE_STANDARDISES)
    return _solved(draw, scaled, triangle, _products(draw, scaled, draw.labelled, draw.classes, share=1.0))


def pseudo_label_head(draw: Draw) -> Scores:
    """Ridge, whose released head then labels unlabelled patients, who teach a head of their own. No gate: as it is."""
    scaled = _standardise(draw, draw.unlabelled, share=RIDGE_STANDARDISES)
    triangle = _triangle(draw, scaled, share=1 - RIDGE_STANDARDISES - PSEUDO_LABELS)
    teacher = _solved(draw, scaled, triangle, _products(draw, scaled, draw.labelled, draw.classes, share=1.0))
    answers = teacher(draw.features).argmax(1)
    return _solved(draw, scaled, triangle, _products(draw, scaled, draw.unlabelled, answers, share=PSEUDO_LABELS))


METHODS: Final[dict[str, Callable[[Draw], Scores]]] = {
    "supervised_head": supervised_head,
    "centred_head": centred_head,
    "standardise_head": standardise_head,
    "standardise_head_40": standardise_head_40,
    "ridge": ridge,
    "pseudo_label_head": pseudo_label_head,
}


def _steps(draw: Draw) -> int:
    return head_steps(
        labelled=len(draw.labelled),
        noise_multiplier=draw.one_release,
        features=draw.features.shape[1],
        classes=draw.class_count,
    )


def _standardise(draw: Draw, patients: NDArray[np.int64], *, share: float) -> Callable[[Floats], Floats]:
    """Return what ``standardise`` makes of features, over sqrt(F), for a share of the budget of ``patients``."""
    features = draw.features[patients]
    count, root = features.shape[1], math.sqrt(features.shape[1])
    noise = draw.one_release * math.sqrt(STANDARDISE_ROUNDS / share) * STANDARDISE_CLIP
    norm = torch.cat([torch.ones(count), torch.zeros(count)])
    for _ in range(STANDARDISE_ROUNDS):
        scale, shift = norm.view(2, count).numpy()
        y = features * scale + shift
        moments = _clipped(np.concatenate([y * y - 1, y], 1) / root, STANDARDISE_CLIP).sum(0, dtype=np.float64)
        mean = (moments + draw.random.normal(0, noise, 2 * count)) / len(patients)
        norm = standardised(norm, torch.from_numpy(mean))
    scale, shift = norm.view(2, count).numpy()
    return lambda values: (values * scale + shift) / root


def _head(draw: Draw, scaled: Callable[[Floats], Floats], *, steps: int, noise: float) -> Scores:
    """Train a linear head by full-batch steps of labelled patients; the mean of the last half. ``noise``: of one."""
    x = _with_bias(scaled(draw.features[draw.labelled]))
    targets = np.eye(draw.class_count)[draw.classes[draw.labelled]]
    norms = np.linalg.norm(x, axis=1)
    weights, kept = np.zeros((x.shape[1], draw.class_count)), []
    for step in range(1, steps + 1):
        errors = _softmax(x @ weights) - targets
        length = norms * np.linalg.norm(errors, axis=1)
        errors *= np.minimum(1, CLIP / np.maximum(length, 1e-12))[:, None]
        gradient = x.T @ errors + draw.random.normal(0, noise * math.sqrt(steps) * CLIP, weights.shape)
        weights = weights - LEARNING_RATE * gradient / len(x)
        if step > AVERAGED_FROM * steps:
            kept.append(weights)
    mean = np.mean(kept, axis=0)
    return lambda features: _with_bias(scaled(features)) @ mean


@dataclass(frozen=True)
class Released:
    """A noised sum over ``patients``; ``noise``: standard deviation in each number."""

    values: Doubles
    patients: int
    noise: float


def _triangle(draw: Draw, scaled: Callable[[Floats], Floats], *, share: float) -> Released:
    rows, noise = _rows(scaled(draw.features[draw.unlabelled])), draw.one_release / math.sqrt(share)
    whole = rows.T @ rows * (math.sqrt(2) - (math.sqrt(2) - 1) * np.eye(rows.shape[1]))
    values = whole[np.triu_indices(rows.shape[1])]
    return Released(values + draw.random.normal(0, noise, len(values)), len(rows), noise)


def _products(
    draw: Draw, scaled: Callable[[Floats], Floats], patients: NDArray[np.int64], classes: Classes, *, share: float
) -> Released:
    rows, noise = _rows(scaled(draw.features[patients])), draw.one_release / math.sqrt(share)
    centred = np.eye(draw.class_count)[classes[patients]] - 1 / draw.class_count
    values = (rows.T @ centred / label_norm(draw.class_count, several=False)).ravel()
    return Released(values + draw.random.normal(0, noise, len(values)), len(rows), noise)


def _solved(draw: Draw, scaled: Callable[[Floats], Floats], triangle: Released, products: Released) -> Scores:
    moments = Moments(
        triangle=triangle.values,
        cross=products.values,
        unlabelled=float(triangle.patients),
        labelled=float(products.patients),
        triangle_noise=triangle.noise,
        cross_noise=products.noise,
    )
    weight, bias = ridge_head(moments, classes=draw.class_count, several=False)
    return lambda features: (scaled(features) @ weight.T + bias).astype(np.float64)


def _rows(features: Floats) -> Doubles:
    """Return clipped features with the intercept (``client.learning.second_moments``)."""
    whole = np.concatenate([features, np.full((len(features), 1), INTERCEPT)], 1).astype(np.float64)
    return _clipped(whole, 1.0)


def _with_bias(features: Floats) -> Doubles:
    return np.concatenate([features, np.full((len(features), 1), BIAS)], 1).astype(np.float64)


def _clipped(rows: NDArray[np.floating], norm: float) -> Doubles:
    clipped: Doubles = rows * np.minimum(1, norm / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
    return clipped


def _softmax(scores: Doubles) -> Doubles:
    shares: Doubles = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return shares
