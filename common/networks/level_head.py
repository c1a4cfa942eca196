"""A linear head at each voxel on two levels of a frozen encoder: the segmentation that privacy can pay for.

Noise grows with the number of parameters that are trained, and a U-Net's 90,000 drown in it. Here the encoder is the
public start and stays it; a few hundred weights learn. Drawn weights do: on the hippocampus they were as good as
pre-trained ones (design page private-segmentation.md, sections 2 and 4). Beside a prior, because a place in the
picture is what such features do not know.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.networks.layers import convolution
from common.networks.unet import Prior, UNetEncoder

LEVELS = 2  # of the encoder: the finest, and the next enlarged to its size


class LevelHead(nn.Module):
    """The encoder's two finest levels side by side, one norm for an image, a scale and shift for a feature, a head.

    Shapes: images (batch, channels, *size) float32, each side at least 4 -> logits (batch, classes, *size).
    ``feature_norm`` brings the features of each image to one scale; the ``standardise`` phase then centres and scales
    each feature. Features are divided by sqrt(3 width), so that a standardised voxel has norm about 1.
    ``prior_size``: as in ``UNet``. Parameters that a phase ``head`` trains: 3 width + 1 for each class.
    """

    def __init__(
        self, *, dimensions: int, classes: int, width: int, channels: int = 1, prior_size: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.prior = Prior(classes - 1, prior_size) if prior_size else None
        self.encoder = UNetEncoder(dimensions, width, channels, levels=LEVELS)
        self.feature_norm = nn.GroupNorm(1, 3 * width)
        self.head = convolution(dimensions, 3 * width, classes, kernel=1)
        self._enlarging = "bilinear" if dimensions == 2 else "trilinear"

    def features(self, images: Tensor) -> Tensor:
        """Return what the head sees: (batch, channels, *size) -> (batch, 3 width, *size)."""
        fine, middle = self.encoder(images)
        enlarged = functional.interpolate(middle, size=fine.shape[2:], mode=self._enlarging, align_corners=False)
        normalised: Tensor = self.feature_norm(torch.cat((fine, enlarged), dim=1))
        return normalised / math.sqrt(normalised.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, channels, *size) to logits (batch, classes, *size)."""
        logits: Tensor = self.head(self.features(images))
        return logits if self.prior is None else self.prior(logits)
