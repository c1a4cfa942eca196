"""A residual network in the manner of Wide ResNet, with GroupNorm in place of BatchNorm.

Source: Zagoruyko & Komodakis 2016 (pre-activation blocks); De et al. 2022 (arXiv 2204.13650) for GroupNorm under
differential privacy.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.networks.layers import convolution, group_norm, spatial_mean

STAGES = 3


class ResidualBlock(nn.Module):
    """Norm, ReLU, convolution, twice, added to the input (through a 1x1 convolution where the shape changes).

    Shapes: (batch, inputs, *size) -> (batch, outputs, *ceil(size / stride)).
    """

    def __init__(self, dimensions: int, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            group_norm(inputs), nn.ReLU(), convolution(dimensions, inputs, outputs, stride=stride)
        )
        self.second = nn.Sequential(group_norm(outputs), nn.ReLU(), convolution(dimensions, outputs, outputs))
        same_shape = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity() if same_shape else convolution(dimensions, inputs, outputs, kernel=1, stride=stride)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, inputs, *size) to (batch, outputs, *ceil(size / stride))."""
        total: Tensor = self.shortcut(features) + self.second(self.first(features))
        return total


class ResidualNetwork(nn.Module):
    """Three stages of residual blocks (width, 2 width, 4 width channels), spatial mean, linear head.

    Shapes: images (batch, channels, *size) float32, each side at least 4 -> logits (batch, classes) float32.
    Parameters: width 16, one block a stage: 77 k in two dimensions; width 64, two blocks: WRN-16-4, 2.7 M.
    """

    def __init__(self, *, dimensions: int, classes: int, width: int, blocks: int, channels: int = 1) -> None:
        super().__init__()
        self.encoder = residual_encoder(dimensions, width, blocks, channels)
        self.head = nn.Linear(4 * width, classes)

    def features(self, images: Tensor) -> Tensor:
        """Return what the head sees: (batch, channels, *size) -> (batch, 4 width)."""
        return spatial_mean(self.encoder(images))

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, channels, *size) to logits (batch, classes)."""
        logits: Tensor = self.head(self.features(images))
        return logits


class ResidualLevels(nn.Module):
    """The same encoder, the spatial means of its three stages side by side, a norm, a linear head.

    For heads on frozen features: ``small_cnn`` says why all levels, a norm and its division. The encoder has the names
    of ``ResidualNetwork``, so start weights of one fit the other. A stage's sum passes a ReLU before its mean.
    Shapes: images (batch, channels, *size) float32, each side at least 4 -> logits (batch, classes) float32.
    """

    def __init__(self, *, dimensions: int, classes: int, width: int, blocks: int, channels: int = 1) -> None:
        super().__init__()
        self.encoder = residual_encoder(dimensions, width, blocks, channels)
        self.feature_norm = nn.GroupNorm(1, 7 * width)
        self.head = nn.Linear(7 * width, classes)
        self._ends = (blocks, 2 * blocks)  # places of the last block of the first two stages

    def features(self, images: Tensor) -> Tensor:
        """Return what the head sees: (batch, channels, *size) -> (batch, 7 width)."""
        means = []
        for place, layer in enumerate(self.encoder):
            images = layer(images)
            if place in self._ends:
                means.append(spatial_mean(functional.relu(images)))
        normalised: Tensor = self.feature_norm(torch.cat([*means, spatial_mean(images)], dim=1))
        return normalised / math.sqrt(normalised.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, channels, *size) to logits (batch, classes)."""
        logits: Tensor = self.head(self.features(images))
        return logits


def residual_encoder(dimensions: int, width: int, blocks: int, channels: int) -> nn.Sequential:
    """Return a convolution, three stages of blocks, a norm and a ReLU: (batch, channels, *size) -> 4 width channels."""
    layers: list[nn.Module] = [convolution(dimensions, channels, width)]
    inputs = width
    for stage in range(STAGES):
        outputs = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(ResidualBlock(dimensions, inputs, outputs, stride=stride))
            inputs = outputs
    return nn.Sequential(*layers, group_norm(inputs), nn.ReLU())
