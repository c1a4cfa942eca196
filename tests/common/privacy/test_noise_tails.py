"""Drawn noise never exceeds 8.57 standard deviations: what that costs is in delta, and the bound holds."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from client.learning import noise
from common.privacy import noise_tails
from common.privacy.accounting import SampledGaussian
from common.privacy.noise_placement import NoiseShares, observer_epsilon
from common.privacy.noise_tails import LARGEST_NORMAL, Shares, tails_delta


def test_the_cut_is_that_of_the_noise_that_is_drawn():
    assert LARGEST_NORMAL == noise.LARGEST_NORMAL
    largest = noise.PrivacyRandomness(lambda count: b"\xff" * count)  # uniforms next to 1
    assert max(abs(largest.normals(4))) <= LARGEST_NORMAL


def cut_density(values, mean, stddev, cut):
    return np.where(abs(values - mean) <= cut * stddev, norm.pdf(values, mean, stddev), 0.0)


@pytest.mark.parametrize("cut", [1.5, 2.5, 4.0])
@pytest.mark.parametrize("sigma", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("shares", [1, 2, 3])
def test_a_cut_that_bites_costs_what_the_bound_says_and_something(cut, sigma, shares, monkeypatch):
    """The true delta of a sum of cut normals, by numerical integration, against Gaussian delta plus the bound."""
    monkeypatch.setattr(noise_tails, "LARGEST_NORMAL", cut)
    step, reach = 1e-3, (cut * math.sqrt(shares) + 1) * sigma + 2
    grid = np.arange(-reach, reach, step)
    one = cut_density(grid, 0.0, sigma / math.sqrt(shares), cut)
    one /= one.sum() * step
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one, mode="same") * step
    inside = (1 - 2 * norm.sf(cut)) ** shares
    moved = np.interp(grid - 1.0, grid, total, left=0.0, right=0.0)
    for spent in (0.1, 1.0, 3.0):
        true = max(np.maximum(a - math.exp(spent) * b, 0).sum() * step for a, b in ((moved, total), (total, moved)))
        gaussian = norm.cdf(0.5 / sigma - spent * sigma) - math.exp(spent) * norm.cdf(-0.5 / sigma - spent * sigma)
        bound = tails_delta([SampledGaussian(1.0, sigma, 1)], coordinates=1, shares=Shares(shares, shares))
        assert true <= (gaussian + bound) / inside + 2e-3 * step + 1e-6
        if shares == 1 and spent == 3.0 and sigma >= 1:
            assert true > gaussian  # without the bound the promise would be wrong


def test_the_bound_grows_with_coordinates_releases_and_shares():
    one = tails_delta([SampledGaussian(1.0, 2.0, 1)], coordinates=1)
    assert 0 < one < 1e-12
    wide = tails_delta([SampledGaussian(1.0, 2.0, 500)], coordinates=11_000_000, shares=Shares(3, 3))
    assert wide == pytest.approx(500 * 3 * 11e6 * 2 * norm.sf(LARGEST_NORMAL), rel=0.01)  # 1.7e-7
    assert tails_delta([SampledGaussian(1.0, 2.0, 1)], coordinates=1, shares=Shares(0, 2)) == math.inf


def test_delta_that_the_tails_use_up_leaves_no_bound():
    events = [SampledGaussian(1.0, 2.0, 1000)]
    shares = NoiseShares(4, 1)
    plain = observer_epsilon(events, 1e-6, shares).guarantee
    assert observer_epsilon(events, 1e-6, shares, coordinates=1_000_000).guarantee > plain
    assert observer_epsilon(events, 1e-12, shares, coordinates=1_000_000_000).guarantee == math.inf
    assert observer_epsilon(events, 1e-12, None, coordinates=1_000_000_000).guarantee == math.inf
