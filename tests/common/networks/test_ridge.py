"""The head that is solved from two released sums: known answers, and finite whatever the noise."""

import numpy as np
import pytest

from common.networks.ridge import (
    INTERCEPT,
    OF_DRAWING,
    Moments,
    label_norm,
    moments_length,
    ridge_head,
    triangle_length,
)

FEATURES, CLASSES = 5, 3


def triangle_of(matrix):
    """One triangle as it travels: sqrt(2) beside the diagonal."""
    whole = matrix * (np.sqrt(2) - (np.sqrt(2) - 1) * np.eye(len(matrix)))
    return whole[np.triu_indices(len(matrix))]


def made_up(seed=0, *, several=False, noise=0.0, classes=CLASSES):
    """Clipped features with the intercept, labels that follow them, and the moments of both."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(400, FEATURES)) / np.sqrt(FEATURES)
    x = np.concatenate([features, np.full((400, 1), INTERCEPT)], axis=1)
    x /= np.maximum(1, np.linalg.norm(x, axis=1, keepdims=True))
    scores = features @ random.normal(size=(FEATURES, classes)) * 3
    labels = (scores > 0).astype(float) if several else np.eye(classes)[scores.argmax(1)]
    centred = labels - (0.5 if several else 1 / classes)
    t = centred / label_norm(classes, several=several)
    moments = Moments(triangle_of(x.T @ x), (x.T @ t).ravel(), 400.0, 400.0, noise, noise)
    return features, x, centred, moments


def test_lengths_are_those_of_one_triangle_and_the_products():
    assert triangle_length(816) == 817 * 818 // 2
    assert moments_length(816, 4) == 817 * 818 // 2 + 817 * 4


@pytest.mark.parametrize("several", [False, True])
def test_without_noise_the_head_is_ridge_regression_times_one_factor(several):
    _, x, centred, moments = made_up(several=several)
    weight, bias = ridge_head(moments, classes=CLASSES, several=several)
    expected = np.linalg.solve(x.T @ x + OF_DRAWING * np.eye(FEATURES + 1), x.T @ centred)
    found = np.concatenate([weight.T, bias[None] / INTERCEPT])
    factor = (found * expected).sum() / (expected**2).sum()
    assert factor > 1
    np.testing.assert_allclose(found, factor * expected, atol=2e-5 * np.abs(found).max())


def test_logits_are_probabilities_that_fit_the_labels():
    features, _, centred, moments = made_up()
    weight, bias = ridge_head(moments, classes=CLASSES, several=False)
    logits = features @ weight.T + bias
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    right = shares[centred > 0]
    accuracy = (shares.argmax(1) == (centred > 0).argmax(1)).mean()
    assert accuracy > 0.8
    assert abs(right.mean() - accuracy) < 0.15


MOMENTS = {
    "noise alone": lambda random: Moments(random.normal(size=21) * 50, random.normal(size=18) * 50, 9.0, 3.0, 50, 50),
    "zeros": lambda _: Moments(np.zeros(21), np.zeros(18), 9.0, 3.0, 50, 50),
    "zeros without noise": lambda _: Moments(np.zeros(21), np.zeros(18), 9.0, 3.0, 0, 0),
    "nobody expected": lambda random: Moments(random.normal(size=21), random.normal(size=18), 0.0, 0.0, 1, 1),
    "the ends of the range": lambda _: Moments(np.full(21, 1e12), np.full(18, -1e12), 9.0, 3.0, 0, 0),
    "a negative triangle": lambda random: Moments(-np.ones(21) * 1e3, random.normal(size=18), 9.0, 3.0, 1, 1),
}


@pytest.mark.parametrize("case", MOMENTS)
def test_the_head_is_finite_whatever_was_released(case):
    for seed in range(5):
        weight, bias = ridge_head(MOMENTS[case](np.random.default_rng(seed)), classes=CLASSES, several=False)
        assert weight.shape == (CLASSES, FEATURES)
        assert weight.dtype == bias.dtype == np.float32
        assert np.isfinite(weight).all()
        assert np.isfinite(bias).all()


def test_more_noise_shrinks_the_scores_before_they_are_scaled():
    *_, quiet = made_up(noise=0.0)
    *_, loud = made_up(noise=100.0)
    small, large = (ridge_head(each, classes=CLASSES, several=False)[0] for each in (loud, quiet))
    assert np.abs(small).max() < np.abs(large).max()
