"""An empirical audit of the production training page: does a round leak no more than it claims?

Two worlds, with and without one patient, thousands of private rounds in each. The released sum along the patient's own
gradient is what the best attacker looks at. A lower bound on epsilon comes out of it in two ways:

    Gaussian    mu = (difference of means) / spread, lowered by its 99.9 % confidence, then epsilon(mu, delta)
    threshold   Clopper-Pearson bounds of true and false positive rates: ln((TPR - delta) / FPR), no assumption

The bound must stay below the claim, and above it when a fault is planted: otherwise the audit proves nothing.
Sources: Jagielski et al. 2020 (two worlds), Nasr et al. 2023 (Gaussian trade-off curves).
"""

import functools
import math

import numpy as np
import pytest
import torch
from scipy.stats import beta, norm
from torch import nn

from client.learning.noise import PrivacyRandomness
from client.learning.patients import ArrayPatients
from client.learning.private_training import PrivateTraining
from client.learning.training_settings import Task, TrainingSettings
from client.private_gradients.clipping import LatticeSum
from client.private_gradients.settings import SpeedSettings
from common.networks.parameters import flatten
from common.privacy.accounting import SampledGaussian, epsilon

pytestmark = pytest.mark.slow

ROUNDS = 2000
DELTA = 1e-5
NOISE_MULTIPLIER = 2.0
SCANS = 4
SIDE = 6
CLAIM = epsilon([SampledGaussian(1.0, NOISE_MULTIPLIER, 1)], DELTA)  # 1.93


class TwoWeights(nn.Module):
    """A classifier whose patient gradient is known: the images are constant, so no view changes their direction."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(SIDE * SIDE, 2, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, images):
        return self.head(images.flatten(1))


class FasterNoise:
    """Gaussian lattice noise from numpy: the audit needs 10,000 rounds; the production source has tests of its own."""

    def __init__(self, factor, *, seed):
        self._random, self._factor = np.random.default_rng(seed), factor

    def integers(self, length, stddev):
        return np.rint(self._factor * stddev * self._random.standard_normal(length)).astype(np.int64)


class ProductionNoise:
    def integers(self, length, stddev):
        return PrivacyRandomness().lattice_noise(length, noise_stddev=stddev, step=1.0)


class NoClip(LatticeSum):
    def add(self, gradients, *, clipping_norm):
        super().add(gradients, clipping_norm=1e6 + clipping_norm)


class EachScanAPatient(ArrayPatients):
    """Gives every scan a clip of its own."""

    def keys(self, stratum):
        return [f"{key}/{scan}" for key in super().keys(stratum) for scan in range(SCANS)]

    def read(self, patient_key):
        key, scan = patient_key.split("/")
        return super().read(key).chosen(torch.tensor([int(scan)]))


def training(*, present, noise, patients_class=ArrayPatients):
    """Return the phase of a site with (or without) one patient of four scans, and no one else."""
    scans = SCANS if present else 0
    people = patients_class(
        np.full((scans, SIDE, SIDE), 0.9, np.float32), np.ones(scans, np.int64), ["p"] * scans, dimensions=2
    )
    settings = TrainingSettings(
        task=Task.CLASSIFICATION,
        classes=2,
        dimensions=2,
        labelled_sampling_rate=1.0,
        clipping_norm=0.5,  # the gradient has norm 0.5 sqrt(2) * 0.9 * 6 = 3.8
        noise_multiplier=NOISE_MULTIPLIER,
        most_scans=SCANS,
    )
    return PrivateTraining(TwoWeights(), people, settings, noise=noise, speed=SpeedSettings(engine="loop"))


def statistics(*, present, noise, rounds=ROUNDS, **how):
    """Return the released sum along the patient's gradient, one number a round."""
    phase = training(present=present, noise=noise, **how)
    start = flatten(phase.network, phase.order)
    direction = np.concatenate([np.ones(SIDE * SIDE), -np.ones(SIDE * SIDE)]) / math.sqrt(2 * SIDE * SIDE)
    return np.array([phase.train_round(1, start).vector @ direction for _ in range(rounds)])


def gaussian_bound(within, without):
    """Return the epsilon that a Gaussian mechanism with the measured separation has at least (99.9 %)."""
    spread = math.sqrt((within.var(ddof=1) + without.var(ddof=1)) / 2)
    mu = (within.mean() - without.mean()) / spread
    mu -= norm.ppf(0.999) * math.sqrt(2 / len(within) + mu**2 / (4 * len(within)))
    if mu < 1e-3:
        return 0.0
    return epsilon([SampledGaussian(1.0, max(float(1 / mu), 0.2), 1)], DELTA)  # 0.2: the accountant's least


def threshold_bound(within, without):
    """Return the largest Clopper-Pearson bound over ten thresholds chosen on the first half, tested on the second."""
    half = len(within) // 2
    candidates = np.quantile(np.concatenate([within[:half], without[:half]]), np.linspace(0.5, 0.99, 10))
    scores = [ratio(within[:half] > t, without[:half] > t) for t in candidates]
    best = candidates[int(np.argmax(scores))]
    return max(0.0, ratio(within[half:] > best, without[half:] > best))


def ratio(hits, false_alarms):
    """Return ln((TPR - delta) / FPR) with 99.9 % bounds on both rates."""
    level = 0.0005
    low = beta.ppf(level, hits.sum(), len(hits) - hits.sum() + 1) if hits.any() else 0.0
    high = beta.ppf(1 - level, false_alarms.sum() + 1, len(false_alarms) - false_alarms.sum())
    return math.log((low - DELTA) / high) if low > DELTA else -math.inf


@functools.cache
def world_without(factor):
    return statistics(present=False, noise=FasterNoise(factor, seed=6))


def audit(*, factor=1.0, **how):
    within = statistics(present=True, noise=FasterNoise(factor, seed=5), **how)
    return gaussian_bound(within, world_without(factor)), threshold_bound(within, world_without(factor))


def test_the_claim_is_two():
    assert 1.5 < CLAIM < 3


def test_the_production_round_leaks_no_more_than_it_claims():
    bounds = audit()
    assert max(bounds) <= CLAIM
    assert bounds[0] >= 0.45 * CLAIM, "a bound far below the claim would not notice a fault"


def test_the_production_noise_gives_the_same_bound():
    within = statistics(present=True, noise=ProductionNoise(), rounds=1500)
    without = statistics(present=False, noise=ProductionNoise(), rounds=1500)
    assert 0.5 * CLAIM <= gaussian_bound(within, without) <= CLAIM


def test_noise_times_seven_tenths_is_flagged():
    assert audit(factor=0.7)[0] > CLAIM


def test_a_clip_for_each_scan_is_flagged():
    bounds = audit(patients_class=EachScanAPatient)
    assert min(bounds) > CLAIM


def test_no_clip_is_flagged(monkeypatch):
    monkeypatch.setattr("client.learning.training.LatticeSum", NoClip)
    bounds = audit()
    assert min(bounds) > CLAIM
