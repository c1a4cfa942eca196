"""What the training benchmark measures: networks and scans, small ones and those of a hospital's size."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.networks.registry import build_network


@dataclass(frozen=True)
class Subject:
    """A network and the scans of one step. ``patients_per_stack`` bounds our memory."""

    model: str
    network: str
    dimensions: int
    width: int
    size: int
    patients: int
    patients_per_stack: int
    blocks: int = 1
    scans_each: int = 1

    def build(self) -> nn.Module:
        """Build the network with start weights; the head is not zero, so that every layer has a gradient."""
        return build_network(
            self.network,
            dimensions=self.dimensions,
            classes=2,
            width=self.width,
            blocks=self.blocks,
            zero_head=False,
        )

    def scans(self) -> tuple[Tensor, Tensor]:
        """Return random scans (patients, scans_each, 1, *size) and their labels."""
        size = (self.size,) * self.dimensions
        images = torch.randn(self.patients, self.scans_each, 1, *size, generator=torch.Generator().manual_seed(0))
        return images, (images.mean(tuple(range(2, images.dim()))) > 0).long()


IMAGES_OF_28: Final = (
    Subject("small_cnn 28", "small_cnn", 2, width=32, size=28, patients=16, patients_per_stack=8, scans_each=4),
    Subject("residual 28", "residual", 2, width=32, size=28, patients=8, patients_per_stack=8, blocks=2, scans_each=4),
    Subject("unet 64", "unet", 2, width=16, size=64, patients=8, patients_per_stack=4, scans_each=4),
    Subject("cnn_3d 28", "small_cnn", 3, width=8, size=28, patients=8, patients_per_stack=4, scans_each=4),
)
HOSPITAL_SIZE: Final = (
    Subject("small_cnn 224", "small_cnn", 2, width=32, size=224, patients=8, patients_per_stack=8),
    Subject("residual 224", "residual", 2, width=64, size=224, patients=4, patients_per_stack=4),
    Subject("residual 112, 5 M", "residual", 2, width=128, size=112, patients=4, patients_per_stack=4),
    Subject("unet 224", "unet", 2, width=16, size=224, patients=4, patients_per_stack=4),
    Subject("cnn_3d 64", "small_cnn", 3, width=16, size=64, patients=4, patients_per_stack=4),
    Subject("unet_3d 64", "unet", 3, width=16, size=64, patients=4, patients_per_stack=4),
    Subject("unet_3d 96", "unet", 3, width=8, size=96, patients=2, patients_per_stack=2),
)


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return one loss for each row: the mean over pixels for a segmentation, where each pixel has the scan's label."""
    labels = labels.view(-1, *[1] * (outputs.dim() - 2)).expand(outputs.shape[0], *outputs.shape[2:])
    return functional.cross_entropy(outputs, labels, reduction="none").reshape(len(outputs), -1).mean(1)
