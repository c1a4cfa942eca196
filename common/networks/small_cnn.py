"""A small convolutional classifier: 14 k to 100 k parameters, the first choice under privacy.

Noise grows with the square root of the number of parameters, so the smallest network that can do the task wins
(docs/privacy.md, "Size rule").
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.networks.layers import halving, normalised_convolution, spatial_mean


class SmallEncoder(nn.Module):
    """Three normalised convolutions (width, 2 width, 4 width channels), halved in between.

    Shapes: (batch, channels, *size), each side at least 4 -> features at size, size // 2, size // 4.
    """

    def __init__(self, dimensions: int, width: int, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            normalised_convolution(dimensions, inputs, outputs)
            for inputs, outputs in ((channels, width), (width, 2 * width), (2 * width, 4 * width))
        )
        self.halving = halving(dimensions)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of the three levels, finest first."""
        fine = self.levels[0](images)
        middle = self.levels[1](self.halving(fine))
        coarse = self.levels[2](self.halving(middle))
        return fine, middle, coarse


class SmallCnn(nn.Module):
    """The small encoder, the spatial means of its three levels side by side, a norm, a linear head.

    The head sees all levels because the finest one knows the texture of X-rays: a linear probe gained 0.01 AUC on
    PneumoniaMNIST (docs/results.md). ``feature_norm`` puts the features of each image on one scale; public
    pre-training and then the ``standardise`` phase set its scale and shift, because a private head learns ten times
    faster from centred features. Features are divided by sqrt(7 width): standardised ones have norm about 1, the
    clipping norm's order.
    Shapes: images (batch, channels, *size) float32, each side at least 4 -> logits (batch, classes) float32.
    Parameters: about 90 width² in two dimensions, 270 width² in three.
    """

    def __init__(self, *, dimensions: int, classes: int, width: int, channels: int = 1) -> None:
        super().__init__()
        self.encoder = SmallEncoder(dimensions, width, channels)
        self.feature_norm = nn.GroupNorm(1, 7 * width)
        self.head = nn.Linear(7 * width, classes)

    def features(self, images: Tensor) -> Tensor:
        """Return what the head sees: (batch, channels, *size) -> (batch, 7 width)."""
        return self.pooled(self.encoder(images))

    def pooled(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the normalised spatial means of the encoder's three levels: (batch, 7 width)."""
        means = torch.cat([spatial_mean(level) for level in levels], dim=1)
        normalised: Tensor = self.feature_norm(means)
        return normalised / math.sqrt(normalised.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, channels, *size) to logits (batch, classes)."""
        logits: Tensor = self.head(self.features(images))
        return logits
