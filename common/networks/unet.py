"""A U-Net for segmentation in two or three dimensions.

Source: Ronneberger et al. 2015; Çiçek et al. 2016 for volumes. Nearest-neighbour enlargement and a convolution replace
the transposed convolution: no checkerboard, and every layer has a per-patient gradient in every engine.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.networks.layers import convolution, halving, normalised_convolution
from common.networks.settings import LEAST_LEVELS


class UNetEncoder(nn.Module):
    """Levels of two normalised convolutions, halved in between.

    Shapes: (batch, channels, *size) -> features at size, size // 2, size // 4, ... with width, 2 width, 4 width, ...
    channels.
    """

    def __init__(self, dimensions: int, width: int, channels: int, *, levels: int = LEAST_LEVELS) -> None:
        super().__init__()
        outputs = [width << level for level in range(levels)]
        self.levels = nn.ModuleList(
            _double_convolution(dimensions, before, after)
            for before, after in zip([channels, *outputs], outputs, strict=False)
        )
        self.halving = halving(dimensions)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the features of the levels, finest first."""
        found = [self.levels[0](images)]
        for level in self.levels[1:]:
            found.append(level(self.halving(found[-1])))
        return tuple(found)


class Prior(nn.Module):
    """Adds log-odds of each structure at each voxel to logits (batch, 1 + structures, *size); the background's stay.

    No gradient trains it (``common.networks.layouts.ALL``): it is the result of a phase of its own.
    """

    def __init__(self, structures: int, size: tuple[int, ...]) -> None:
        super().__init__()
        self.odds = nn.Parameter(torch.zeros(structures, *size))

    def forward(self, logits: Tensor) -> Tensor:
        """Return the sum. Shapes: as the class says."""
        return torch.cat((logits[:, :1], logits[:, 1:] + self.odds), dim=1)


class UNet(nn.Module):
    """A U-Net of three levels, or more.

    Shapes: images (batch, channels, *size) float32, each side at least 2^(levels - 1) (any size: enlargement goes to
    the finer level's size) -> logits (batch, classes, *size) float32. ``prior_size``: size of the images where log-odds
    of each structure at each voxel are added to the logits (``prior``); other sizes do not fit then.
    Parameters: width 8: about 30 k in two dimensions, 88 k in three.
    """

    def __init__(
        self,
        *,
        dimensions: int,
        classes: int,
        width: int,
        channels: int = 1,
        levels: int = LEAST_LEVELS,
        prior_size: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.prior = Prior(classes - 1, prior_size) if prior_size else None
        self.encoder = UNetEncoder(dimensions, width, channels, levels=levels)
        self.decoder = nn.ModuleList(
            _double_convolution(dimensions, 3 * width << level, width << level) for level in reversed(range(levels - 1))
        )
        self.head = convolution(dimensions, width, classes, kernel=1)

    def features(self, images: Tensor) -> Tensor:
        """Return what the head sees: (batch, channels, *size) -> (batch, width, *size)."""
        *finer, features = self.encoder(images)
        for layers, beside in zip(self.decoder, reversed(finer), strict=True):
            features = layers(_enlarged_beside(features, beside))
        finest: Tensor = features
        return finest

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, channels, *size) to logits (batch, classes, *size)."""
        logits: Tensor = self.head(self.features(images))
        return logits if self.prior is None else self.prior(logits)


def _double_convolution(dimensions: int, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        normalised_convolution(dimensions, inputs, outputs), normalised_convolution(dimensions, outputs, outputs)
    )


def _enlarged_beside(coarse: Tensor, fine: Tensor) -> Tensor:
    """Enlarge ``coarse`` to the size of ``fine`` and put both side by side along the channels."""
    enlarged = functional.interpolate(coarse, size=fine.shape[2:], mode="nearest")
    return torch.cat((enlarged, fine), dim=1)
