"""From the names in a study plan to a network with start weights that every site shares bit for bit."""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn

from common.networks.autoencoder import Autoencoder
from common.networks.feature_head import FeatureHead
from common.networks.level_head import LevelHead
from common.networks.residual import ResidualLevels, ResidualNetwork
from common.networks.settings import (
    AUTOENCODER,
    ENCODER,
    IMAGE_NETWORKS,
    LEVEL_HEAD,
    NETWORK_NAMES,
    RESIDUAL,
    RESIDUAL_LEVELS,
    SMALL_CNN,
    UNET,
    NetworkSettings,
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
    "network_of",
    "network_shape",
    "shape_of",
]


def build_network(name: str, *, seed: int = 0, zero_head: bool = True, **settings: Any) -> nn.Module:
    """Build the network ``name`` with deterministic start weights. ``settings``, errors: as ``NetworkSettings``."""
    return network_of(NetworkSettings(name, **settings), seed=seed, zero_head=zero_head)


def network_shape(name: str, **settings: Any) -> nn.Module:
    """Build the network ``name`` without weights (``shape_of``). ``settings``, errors: as ``NetworkSettings``."""
    return shape_of(NetworkSettings(name, **settings))


def network_of(settings: NetworkSettings, *, seed: int = 0, zero_head: bool = True) -> nn.Module:
    """Build a network with deterministic start weights.

    Shapes: images (batch, channels, *size), ``len(size) == dimensions`` -> logits (batch, classes) for ``small_cnn``,
    ``residual`` and ``residual_levels``, (batch, classes, *size) for ``unet`` and ``level_head``, a reconstruction of
    the images for ``autoencoder`` (which ignores ``classes`` and never starts with a zero head: no gradient would reach
    its encoder).
    Guarantee: equal arguments give bit-identical weights on every machine; the network passes ``refuse_unsuitable``.
    """
    network = shape_of(settings)
    for layer in network.modules():
        for own, parameter in layer.named_parameters(recurse=False):
            setattr(layer, own, nn.Parameter(torch.empty(parameter.shape)))
    set_first_weights(network, settings.name, seed=seed, zero_head=zero_head)
    return network


def shape_of(settings: NetworkSettings) -> nn.Module:
    """Build a network without weights, on torch's meta device: names and shapes of everything, no memory."""
    with torch.device("meta"):  # torch's own start values would cost a second and be overwritten
        network = _BUILDERS[settings.name](settings)
    refuse_unsuitable(network)  # so there are no buffers: parameters are all that has a value
    return network


def set_first_weights(network: nn.Module, name: str, *, seed: int, zero_head: bool = True) -> None:
    """Write the start weights of the network ``name`` into ``network``, which must be on the processor."""
    set_start_weights(network, seed=seed, zero_head=zero_head and name != AUTOENCODER)


def _sizes(settings: NetworkSettings, *names: str) -> dict[str, Any]:
    """Return the settings that a class takes: those that all image networks have, and those of ``names``."""
    return {name: getattr(settings, name) for name in ("dimensions", "width", "channels", *names)}


_BUILDERS: Final[dict[str, Callable[[NetworkSettings], nn.Module]]] = {
    SMALL_CNN: lambda wanted: SmallCnn(**_sizes(wanted, "classes")),
    RESIDUAL: lambda wanted: ResidualNetwork(**_sizes(wanted, "classes", "blocks")),
    RESIDUAL_LEVELS: lambda wanted: ResidualLevels(**_sizes(wanted, "classes", "blocks")),
    UNET: lambda wanted: UNet(**_sizes(wanted, "classes", "levels", "prior_size")),
    LEVEL_HEAD: lambda wanted: LevelHead(**_sizes(wanted, "classes", "prior_size")),
    AUTOENCODER: lambda wanted: Autoencoder(**_sizes(wanted)),
    ENCODER: lambda wanted: FeatureHead(
        features=wanted.features,
        classes=wanted.classes,
        hidden_units=wanted.hidden_units,
        projection=wanted.projection,
    ),
}
