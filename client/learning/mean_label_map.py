"""A patient's label maps as a gradient, so that their sum goes through clip, noise and ledger like any other.

    output of one scan = marked      (structures, *size), zero: the parameter itself, whatever the image
    loss of one scan = sum over v of marked_k(v) [target(v) = k]        its gradient: the scan's label maps, one-hot

The parameter is never changed; the server turns the released mean into a prior (``common.networks.prior``). A patient's
vector has the norm sqrt(voxels of its structures), the mean over its labelled scans no more than the largest of them.
"""

import torch
from torch import Tensor, nn

from common.networks.errors import NetworkUnsuitableError
from common.networks.parameters import Entry, Layout
from common.networks.unet import Prior


class MeanLabelMap(nn.Module):
    """Forward maps images (batch, channels, *size) to (batch, structures, *size): the same zeros for each.

    Raises: NetworkUnsuitableError if the network has no prior.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        prior = getattr(network, "prior", None)
        if not isinstance(prior, Prior):
            raise NetworkUnsuitableError(f"{type(network).__name__} has no prior; set network.prior = true")
        self.network = network
        self.marked = nn.Parameter(torch.zeros_like(prior.odds))

    @property
    def order(self) -> Layout:
        """The gradient's order: that of the network's prior."""
        return Layout((Entry("marked", tuple(self.marked.shape), 0),))

    def forward(self, images: Tensor) -> Tensor:
        """Return the parameter for each image."""
        return self.marked.unsqueeze(0).expand(len(images), *self.marked.shape)
