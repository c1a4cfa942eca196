"""Log-odds of a mean label map, and the network that adds them to its logits."""

import numpy as np
import pytest
import torch

from common.networks.layouts import layout_of
from common.networks.parameters import layout
from common.networks.prior import FLOOR, PRIOR, log_odds
from common.networks.registry import build_network
from common.networks.shapes import network_parameters

SIZE = (6, 8)


def means():
    label_maps = np.zeros((2, *SIZE))
    label_maps[0, 1:3, 1:4], label_maps[1, 3:5, 4:7] = 0.7, 0.2
    return label_maps


def test_without_smoothing_they_are_the_log_of_shares_over_the_background():
    odds = log_odds(means().ravel(), size=SIZE, smoothing_px=0).reshape(2, *SIZE)
    assert odds[0, 1, 1] == pytest.approx(np.log(0.7 / 0.3), abs=1e-6)
    assert odds[1, 3, 4] == pytest.approx(np.log(0.2 / 0.8), abs=1e-6)
    assert odds[0, 0, 0] == pytest.approx(np.log(FLOOR), abs=1e-6)


def test_smoothing_keeps_the_sum_inside_and_reaches_three_deviations():
    shares = np.zeros((1, 21, 21))
    shares[0, 10, 10] = 0.5
    sharp, soft = (log_odds(shares.ravel(), size=(21, 21), smoothing_px=width).reshape(21, 21) for width in (0.0, 1.0))
    assert soft[10, 11] > sharp[10, 11]
    assert soft[10, 10] < sharp[10, 10]
    assert soft[10, 14] == sharp[10, 14]
    assert np.array_equal(soft, soft.T)


@pytest.mark.parametrize("value", [-1e6, 1e6, 0.0])
def test_whatever_the_noise_makes_of_a_mean_the_prior_is_finite(value):
    odds = log_odds(np.full(2 * 48, value), size=SIZE, smoothing_px=0.7)
    assert np.isfinite(odds).all()
    assert np.abs(odds).max() <= -np.log(FLOOR) + 1e-6


def unet(**options):
    return build_network("unet", dimensions=2, classes=3, width=4, **options)


def test_the_prior_is_added_to_the_structures_logits_and_zero_at_the_start():
    plain, network = unet(zero_head=False), unet(zero_head=False, prior_size=SIZE)
    images = torch.rand(2, 1, *SIZE)
    assert torch.equal(network(images), plain(images))
    with torch.no_grad():
        network.prior.odds.copy_(torch.from_numpy(np.random.default_rng(0).random((2, *SIZE), np.float32)))
    difference = network(images) - plain(images)
    assert torch.equal(difference[:, 0], torch.zeros(2, *SIZE))
    assert torch.allclose(difference[:, 1:], network.prior.odds.expand(2, 2, *SIZE), atol=1e-6)


def test_gradients_train_everything_but_the_prior_and_the_shapes_say_the_same_without_pytorch():
    network = unet(prior_size=SIZE)
    named = [(name, tuple(parameter.shape)) for name, parameter in network.named_parameters()]
    assert list(network_parameters("unet", dimensions=2, classes=3, width=4, prior_size=SIZE)) == named
    trained = {entry.name for entry in layout(network, "all").entries}
    assert trained == {name for name, _ in named} - {PRIOR}
    assert [entry.name for entry in layout(network, "prior").entries] == [PRIOR]
    assert layout(network).num_parameters == layout(network, ["all", "prior"]).num_parameters
    without = network_parameters("unet", dimensions=2, classes=3, width=4)
    assert layout_of(without, "all").digest == layout_of(without).digest
