"""The ablation's short cut: it clips, averages and learns like the phases that it stands for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from client.learning.feature_moments import FeatureMoments
from common.networks.registry import build_network
from simulation.experiments.ablation import (
    FEATURES,
    POOLED,
    VIEWS,
    WIDTH,
    Frozen,
    _affine,
    _averaged,
    _clipped_sum,
    _features,
    _moments,
    trained_auc,
)


def drawn(count=240, seed=4):
    """Features with a large common mean, of which three tell the classes apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    plain = 3 + 0.5 * rng.normal(size=(count, FEATURES))
    plain[:, :3] += 0.6 * labels[:, None]
    norm = torch.cat([torch.ones(FEATURES), torch.zeros(FEATURES)])
    views = np.repeat(plain[None], VIEWS, 0)
    return Frozen(plain, views, plain, norm, labels, labels), [(np.arange(0, 80), np.arange(80, count))]


def test_without_noise_both_phases_learn_and_a_narrow_range_spoils_it():
    data, sites = drawn()
    clear = replace(POOLED, noise=False, standardise_rounds=4)
    found = trained_auc(data, sites, clear, np.random.default_rng(0))
    assert found > 0.85
    assert trained_auc(data, sites, replace(clear, coordinate_range=0.5), np.random.default_rng(0)) < found - 0.02


def test_one_patient_adds_at_most_the_clipping_norm():
    each = np.random.default_rng(0).normal(size=(1, 5, 2)) * 100
    assert np.linalg.norm(_clipped_sum(each, 0.7)) == pytest.approx(0.7)
    assert np.linalg.norm(_clipped_sum(each / 1e4, 0.7)) == pytest.approx(np.linalg.norm(each / 1e4))


def test_models_are_averaged_over_the_last_half_or_with_a_decay():
    models = [np.full(1, value) for value in (1.0, 2.0, 4.0, 8.0)]
    assert _averaged(models, None) == pytest.approx(6.0)
    assert _averaged(models, 0.5) == pytest.approx((1 / 8 + 2 / 4 + 4 / 2 + 8) / (15 / 8))


def test_the_moments_are_those_of_the_production_network():
    network = build_network("small_cnn", dimensions=2, classes=2, width=WIDTH)
    moments, image = FeatureMoments(network), torch.rand(1, 1, 28, 28)
    moments(image).sum().backward()
    theirs = torch.cat([moments.spread.grad, moments.shift.grad]).double().numpy()
    norm = torch.cat([network.feature_norm.weight, network.feature_norm.bias]).detach()
    ours = _moments(_affine(_features(network, image), norm))
    assert ours == pytest.approx(theirs * min(1, 2 / np.linalg.norm(theirs)), abs=1e-4)
