"""A network's answers where nothing is learned from them: no gradients, and one volume as quick as several."""

import torch
from torch import Tensor, nn

from client.private_gradients.lone_volumes import lone_volumes_by_onednn


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Return the network's outputs, where it lives: (rows, channels, *size) -> (rows, classes, ...) float32."""
    with torch.no_grad(), lone_volumes_by_onednn(network.modules()):
        logits: Tensor = network(images).float()
    return logits
