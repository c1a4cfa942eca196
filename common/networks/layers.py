"""Building blocks that exist in two and three dimensions under one name."""

from torch import Tensor, nn

from common.networks.settings import CHANNELS_PER_GROUP

_CONVOLUTIONS: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_HALVINGS: dict[int, type[nn.AvgPool2d | nn.AvgPool3d]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


def convolution(dimensions: int, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Module:
    """Return a convolution with zero padding that keeps the size (stride 1) or halves it, rounding up (stride 2).

    Zero padding on purpose: with other padding modes the per-sample hooks of Opacus 1.6 give wrong gradients, and we
    want it as an oracle (docs/privacy.md).
    """
    return _CONVOLUTIONS[dimensions](inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def group_norm(channels: int) -> nn.GroupNorm:
    """Return GroupNorm with groups of four channels: statistics of one image only, never of a batch."""
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)


def halving(dimensions: int) -> nn.Module:
    """Return an average pool that halves each side (rounding down).

    The mean has no ties, so per-patient gradients do not depend on how patients are batched.
    """
    return _HALVINGS[dimensions](2)


def normalised_convolution(dimensions: int, inputs: int, outputs: int) -> nn.Sequential:
    """Return convolution, GroupNorm, ReLU: shape (batch, inputs, *size) -> (batch, outputs, *size)."""
    return nn.Sequential(convolution(dimensions, inputs, outputs), group_norm(outputs), nn.ReLU())


def spatial_mean(features: Tensor) -> Tensor:
    """Average over all positions: (batch, channels, *size) -> (batch, channels)."""
    return features.flatten(2).mean(2)
