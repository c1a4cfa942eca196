"""From the names in a study plan to a network with start weights that every site shares bit for bit."""

from collections.abc import Callable

import torch
from torch import nn

from common.networks.autoencoder import Autoencoder
from common.networks.feature_head import FeatureHead
from common.networks.level_head import LevelHead
from common.networks.residual import ResidualLevels, ResidualNetwork
from common.networks.shapes import (
    AUTOENCODER,
    ENCODER,
    IMAGE_NETWORKS,
    LEVEL_HEAD,
    NETWORK_NAMES,
    RESIDUAL,
    RESIDUAL_LEVELS,
    SMALL_CNN,
    UNET,
    check_network,
    check_prior,
)
from common.networks.small_cnn import SmallCnn
from common.networks.start_weights import set_start_weights
from common.networks.suitability import refuse_unsuitable
from common.networks.unet import UNet

__all__ = [
    "AUTOENCODER",
    "ENCODER",
    "IMAGE_NETWORKS",
    "LEVEL_HEAD",
    "NETWORK_NAMES",
    "RESIDUAL",
    "RESIDUAL_LEVELS",
    "SMALL_CNN",
    "UNET",
    "build_network",
    "network_shape",
]


def build_network(
    name: str,
    *,
    dimensions: int,
    classes: int,
    width: int,
    blocks: int = 1,
    channels: int = 1,
    features: int = 0,
    hidden_units: int = 0,
    prior_size: tuple[int, ...] = (),
    seed: int = 0,
    zero_head: bool = True,
) -> nn.Module:
    """Build the network ``name`` with deterministic start weights.

    Shapes: images (batch, channels, *size), ``len(size) == dimensions`` -> logits (batch, classes) for ``small_cnn``,
    ``residual`` and ``residual_levels``, (batch, classes, *size) for ``unet`` and ``level_head``, a reconstruction of
    the images for ``autoencoder`` (which ignores ``classes`` and never starts with a zero head: no gradient would reach
    its encoder). ``width``: channels of the first level, a multiple of 4; ``blocks``: residual blocks a stage;
    ``channels``: of an image, 1 (grey) or 3 (colour). ``features``, ``hidden_units``: of ``encoder``, whose input is
    (batch, features) instead of images. ``prior_size``: of ``unet``: images of this size, with a prior.
    Guarantee: equal arguments give bit-identical weights on every machine; the network passes ``refuse_unsuitable``.
    Raises: NetworkUnsuitableError for an unknown name or a value out of bounds.
    """
    network = network_shape(
        name,
        dimensions=dimensions,
        classes=classes,
        width=width,
        blocks=blocks,
        channels=channels,
        features=features,
        hidden_units=hidden_units,
        prior_size=prior_size,
    )
    for layer in network.modules():
        for own, parameter in layer.named_parameters(recurse=False):
            setattr(layer, own, nn.Parameter(torch.empty(parameter.shape)))
    set_first_weights(network, name, seed=seed, zero_head=zero_head)
    return network


def network_shape(
    name: str,
    *,
    dimensions: int,
    classes: int,
    width: int,
    blocks: int = 1,
    channels: int = 1,
    features: int = 0,
    hidden_units: int = 0,
    prior_size: tuple[int, ...] = (),
) -> nn.Module:
    """Build the network ``name`` without weights, on torch's meta device: names and shapes of everything, no memory.

    Arguments and errors as for ``build_network``.
    """
    sizes = {"classes": classes, "width": width, "blocks": blocks, "channels": channels}
    check_network(name, dimensions=dimensions, **sizes, features=features, hidden_units=hidden_units)
    check_prior(name, dimensions, prior_size)
    builders: dict[str, Callable[[], nn.Module]] = {
        SMALL_CNN: lambda: SmallCnn(dimensions=dimensions, classes=classes, width=width, channels=channels),
        RESIDUAL: lambda: ResidualNetwork(
            dimensions=dimensions, classes=classes, width=width, blocks=blocks, channels=channels
        ),
        RESIDUAL_LEVELS: lambda: ResidualLevels(
            dimensions=dimensions, classes=classes, width=width, blocks=blocks, channels=channels
        ),
        UNET: lambda: UNet(
            dimensions=dimensions, classes=classes, width=width, channels=channels, prior_size=prior_size
        ),
        LEVEL_HEAD: lambda: LevelHead(
            dimensions=dimensions, classes=classes, width=width, channels=channels, prior_size=prior_size
        ),
        AUTOENCODER: lambda: Autoencoder(dimensions=dimensions, width=width, channels=channels),
        ENCODER: lambda: FeatureHead(features=features, classes=classes, hidden_units=hidden_units),
    }
    with torch.device("meta"):  # torch's own start values would cost a second and be overwritten
        network = builders[name]()
    refuse_unsuitable(network)  # so there are no buffers: parameters are all that has a value
    return network


def set_first_weights(network: nn.Module, name: str, *, seed: int, zero_head: bool = True) -> None:
    """Write the start weights of the network ``name`` into ``network``, which must be on the processor."""
    set_start_weights(network, seed=seed, zero_head=zero_head and name != AUTOENCODER)
