"""Second moments of features, and their products with labels, as a gradient, so that they go through clip and ledger.

    x = (features, b) / max(1, |features, b|)         of one scan; features of the network, b a constant
    output of one scan = (triangle . T(x x'),  x' cross)          triangle, cross: parameters, zero
    a patient without labels: gradient of the first output = T(x x'), one triangle, sqrt(2) beside the diagonal
    a labelled patient: gradient of the second times t = x t'     t the centred label, of norm at most 1

|T(x x')| = |x|^2 <= 1 and |x t'| <= 1: the mean over a patient's scans is no longer, so the clip only guards. Neither
parameter is ever changed; the server solves for the head (``common.networks.ridge``).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from client.learning.patients import UNKNOWN
from common.networks.errors import NetworkUnsuitableError
from common.networks.parameters import Entry, Layout
from common.networks.ridge import INTERCEPT, label_norm, triangle_length


class SecondMoments(nn.Module):
    """Forward maps images (batch, channels, *size) to (batch, 1 + classes): see above.

    Raises: NetworkUnsuitableError if the network has no feature norm with a linear head on it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        features, head = getattr(network, "features", None), getattr(network, "head", None)
        norm = getattr(network, "feature_norm", None)
        fits = isinstance(head, nn.Linear) and isinstance(norm, nn.GroupNorm) and head.in_features == norm.num_channels
        if not callable(features) or not isinstance(head, nn.Linear) or not fits:
            raise NetworkUnsuitableError(f"{type(network).__name__} has no linear head on normed features for ridge")
        self.network = network
        self._features: Callable[[Tensor], Tensor] = features
        rows, device = head.in_features + 1, head.weight.device
        self.triangle = nn.Parameter(torch.zeros(triangle_length(head.in_features), device=device))
        self.cross = nn.Parameter(torch.zeros(rows, head.out_features, device=device))
        upper = torch.triu_indices(rows, rows, device=device)
        self.register_buffer("first", upper[0], persistent=False)
        self.register_buffer("second", upper[1], persistent=False)
        self.register_buffer("twice", torch.where(upper[0] == upper[1], 1.0, math.sqrt(2)), persistent=False)

    @property
    def order(self) -> Layout:
        """The gradient's order: the triangle row by row, then the products with labels."""
        triangle = self.triangle.numel()
        return Layout((Entry("triangle", (triangle,), 0), Entry("cross", tuple(self.cross.shape), triangle)))

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, 1 + classes): linear in both parameters; zero in value, since both are zero."""
        features = self._features(images)
        x = torch.cat([features, torch.full_like(features[:, :1], INTERCEPT)], dim=1)
        x = x / x.norm(dim=1, keepdim=True).clamp(min=1.0)
        first, second = self.get_buffer("first"), self.get_buffer("second")
        squares = x[:, first] * x[:, second] * (self.get_buffer("twice") * self.triangle)
        products = (x.unsqueeze(2) * self.cross).sum(1)
        return torch.cat([squares.sum(1, keepdim=True), products], dim=1)


def centred_labels(labels: Tensor, classes: int) -> Tensor:
    """Return t (scans, classes) float32 of norm at most 1, zero where nothing is known.

    labels: (scans,) class of each scan, or (scans, classes) 0 or 1 for several labels at once; int64.
    """
    several = labels.ndim == 2
    if several:
        centred = torch.where(labels == UNKNOWN, 0.0, labels.float() - 0.5)
    else:
        numbers = torch.arange(classes, device=labels.device)
        centred = (labels.unsqueeze(1) == numbers).float() - 1 / classes
        centred = torch.where((labels == UNKNOWN).unsqueeze(1), 0.0, centred)
    return centred / label_norm(classes, several=several)
