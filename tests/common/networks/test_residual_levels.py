"""A head on the means of every stage of the residual encoder."""

import pytest
import torch

from common.networks.initialisation import available, load_initialisation
from common.networks.registry import build_network
from common.networks.suitability import refuse_unsuitable


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_head_sees_the_mean_of_each_stage(dimensions, blocks):
    network = build_network("residual_levels", dimensions=dimensions, classes=3, width=4, blocks=blocks)
    refuse_unsuitable(network)
    images = torch.rand(2, 1, *(9,) * dimensions, generator=torch.Generator().manual_seed(3))
    found, sums = [], images
    for place, layer in enumerate(network.encoder):
        sums = layer(sums)
        if place in (blocks, 2 * blocks):
            found.append(sums.clamp(min=0).flatten(2).mean(2))
    means = torch.cat([*found, sums.flatten(2).mean(2)], 1)
    assert means.shape == (2, 4 + 8 + 16)
    centred = means - means.mean(1, keepdim=True)
    wanted = centred / (means.var(1, keepdim=True, correction=0) + 1e-5).sqrt() / 28**0.5
    torch.testing.assert_close(network.features(images), wanted)


def test_start_weights_of_the_residual_network_fit_its_encoder():
    (digest,) = [each.digest for each in available() if each.network == "residual"]
    network, other = (
        build_network(name, dimensions=2, classes=2, width=16) for name in ("residual_levels", "residual")
    )
    load_initialisation(network, digest)
    load_initialisation(other, digest)
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    assert torch.equal(network.encoder(images), other.encoder(images))
