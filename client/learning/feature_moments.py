"""Mean and spread of a network's features over patients, as a gradient, so that they go through clip, noise and ledger.

    output of one scan = (spread . (y^2 - 1) + shift . y) / sqrt(F)     y standardised features, F of them
    its gradient with respect to (spread, shift) = (y^2 - 1, y) / sqrt(F)      of features at each voxel: their means

``spread`` and ``shift`` stand for scale and shift of ``feature_norm``: they are never changed here, the server turns
the noised mean of the gradient into both (``common.networks.standardisation``). No label is used: every patient may
take part.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.networks.errors import NetworkUnsuitableError
from common.networks.parameters import Entry, Layout


class FeatureMoments(nn.Module):
    """Forward maps images (batch, channels, *size) to (batch,), whose gradient is the scan's feature moments.

    Raises: NetworkUnsuitableError if the network has no feature norm.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        features, norm = getattr(network, "features", None), getattr(network, "feature_norm", None)
        if not callable(features) or not isinstance(norm, nn.GroupNorm):
            raise NetworkUnsuitableError(
                f"{type(network).__name__} has no feature norm to standardise; use residual_levels"
            )
        self.network = network
        self._features: Callable[[Tensor], Tensor] = features
        self._root = math.sqrt(norm.num_channels)
        self.spread = nn.Parameter(torch.zeros_like(norm.weight))
        self.shift = nn.Parameter(torch.zeros_like(norm.bias))

    @property
    def order(self) -> Layout:
        """The gradient's order: spread in the place of the norm's scale, shift in that of its shift."""
        count = self.spread.numel()
        return Layout((Entry("spread", (count,), 0), Entry("shift", (count,), count)))

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch,): linear in spread and shift; zero in value, since both are zero."""
        y = self._features(images) * self._root
        squares, means = (each.flatten(2).mean(2) if each.ndim > 2 else each for each in (y.square(), y))
        result: Tensor = (self.spread * (squares - 1) + self.shift * means).sum(1) / self._root
        return result
