"""A head at each voxel on a frozen encoder: what it sees, what standardises it, what a phase trains of it."""

import pytest
import torch

from client.learning.feature_moments import FeatureMoments
from common.networks.parameters import layout
from common.networks.registry import build_network
from common.networks.standardisation import standardised

SIZES = {2: (12, 16), 3: (6, 8, 6)}


def level_head(dimensions, **options):
    return build_network("level_head", dimensions=dimensions, classes=3, width=8, seed=1, **options)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_it_has_the_encoder_of_the_unet_and_a_head_of_a_few_numbers(dimensions):
    network = level_head(dimensions)
    unet = build_network("unet", dimensions=dimensions, classes=3, width=8, seed=1)
    shared = dict(unet.encoder.levels[:2].named_parameters())
    assert all(torch.equal(value, shared[name]) for name, value in network.encoder.levels.named_parameters())
    assert layout(network, "head").num_parameters == 3 * (3 * 8 + 1)
    assert layout(network, "feature_norm").num_parameters == 2 * 3 * 8
    assert network(torch.rand(2, 1, *SIZES[dimensions])).shape == (2, 3, *SIZES[dimensions])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_moments_of_its_features_centre_and_scale_each_over_voxels_and_scans(dimensions):
    network, images = level_head(dimensions), torch.rand(6, 1, *SIZES[dimensions])
    for _ in range(4):  # a variance below 1 / 25 is stretched in steps
        moments = FeatureMoments(network)
        spread, shift = torch.autograd.grad(moments(images).mean(), (moments.spread, moments.shift))
        norm = torch.cat([network.feature_norm.weight, network.feature_norm.bias]).detach()
        scale, bias = standardised(norm, torch.cat([spread, shift])).chunk(2)
        with torch.no_grad():
            network.feature_norm.weight.copy_(scale)
            network.feature_norm.bias.copy_(bias)
    seen = network.features(images).detach().movedim(1, 0).flatten(1) * (3 * 8) ** 0.5
    assert torch.allclose(seen.mean(1), torch.zeros(24), atol=1e-3)
    assert torch.allclose(seen.std(1), torch.ones(24), atol=5e-2)


def test_a_voxel_s_standardised_features_have_norm_about_one():
    images = torch.rand(4, 1, *SIZES[2])
    assert 0.5 < float(level_head(2).features(images).norm(dim=1).mean()) < 2
