"""What a network keeps for the backward pass is known without PyTorch, and PyTorch keeps just that."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from common.networks.errors import NetworkUnsuitableError
from common.networks.outputs import outputs_of
from common.networks.registry import IMAGE_NETWORKS, build_network

SIZES = {2: [(16, 16), (21, 18)], 3: [(8, 8, 8), (9, 7, 10)]}


def kept_by_torch(network, images):
    """Values of different memory that wait for the backward pass, parameters apart."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept = {}

    def noted(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes() // 4, tensor)
        return tensor

    with saved_tensors_hooks(noted, lambda tensor: tensor):
        network(images)
    return sum(values for values, _ in kept.values())


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("width", [4, 12])
def test_the_layers_outputs_are_what_pytorch_keeps_for(name, dimensions, width):
    for size in SIZES[dimensions]:
        network = build_network(name, dimensions=dimensions, classes=3, width=width)
        found = kept_by_torch(network, torch.zeros(1, 1, *size))
        assert outputs_of(name, size=size, classes=3, width=width).kept == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize(("levels", "size"), [(4, (16, 24)), (5, (32, 16)), (4, (8, 16, 8))])
def test_a_deeper_unet_keeps_its_levels(levels, size):
    network = build_network("unet", dimensions=len(size), classes=3, width=4, levels=levels)
    found = kept_by_torch(network, torch.zeros(1, 1, *size))
    assert outputs_of("unet", size=size, classes=3, width=4, levels=levels).kept == pytest.approx(found, rel=0.01)


def test_colour_keeps_its_channels():
    network = build_network("small_cnn", dimensions=2, classes=2, width=8, channels=3)
    found = kept_by_torch(network, torch.zeros(1, 3, 16, 16))
    kept = outputs_of("small_cnn", size=(16, 16), classes=2, width=8, channels=3).kept
    assert kept == pytest.approx(found, rel=0.01)


def test_more_blocks_keep_more():
    for blocks in (1, 2, 3):
        network = build_network("residual", dimensions=2, classes=2, width=8, blocks=blocks)
        found = kept_by_torch(network, torch.zeros(1, 1, 16, 16))
        assert outputs_of("residual", size=(16, 16), classes=2, width=8, blocks=blocks).kept == pytest.approx(
            found, rel=0.01
        )


@pytest.mark.parametrize("sizes", [(12, 2, 0, 0), (816, 4, 0, 0), (12, 3, 5, 0), (12, 2, 0, 8), (816, 3, 5, 64)])
def test_a_head_on_features_keeps_rows_and_no_image(sizes):
    size = {"width": 16} | dict(zip(("features", "classes", "hidden_units", "projection"), sizes, strict=True))
    network = build_network("encoder", dimensions=2, **size)
    found = kept_by_torch(network, torch.zeros(1, sizes[0]))
    assert outputs_of("encoder", size=(8, 8), **size).kept == pytest.approx(found, rel=0.02, abs=8)


def test_an_unknown_network_is_refused():
    with pytest.raises(NetworkUnsuitableError, match="unknown network"):
        outputs_of("resnet", size=(8, 8), classes=2, width=8)
