"""Networks and scans of the GPU check: public random numbers, the same in every run."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from client.private_gradients.stacks import PatientRows
from common.networks.registry import build_network


@dataclass(frozen=True)
class Subject:
    """A network, the side of its images in pixels or voxels, and how many patients go side by side."""

    model: str
    network: str
    dimensions: int
    width: int
    size: int
    patients: int

    def build(self, device: str) -> nn.Module:
        """Build the network; the head is not zero, so that every layer has a gradient."""
        return build_network(self.network, dimensions=self.dimensions, classes=2, width=self.width, zero_head=False).to(
            device
        )

    def scans(self, device: str, *, patients: int = 0) -> list[PatientRows]:
        """Return one random scan of each patient."""
        size = (self.size,) * self.dimensions
        found = []
        for seed in range(patients or self.patients):
            image: Tensor = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(seed))
            label = torch.tensor([seed % 2])
            found.append(PatientRows(image.to(device), (label.to(device),), torch.ones(1, device=device)))
        return found


SUBJECTS: Final = (
    Subject("small_cnn 224²", "small_cnn", dimensions=2, width=32, size=224, patients=32),
    Subject("residual 224²", "residual", dimensions=2, width=64, size=224, patients=16),
    Subject("unet 224²", "unet", dimensions=2, width=16, size=224, patients=16),
    Subject("unet 96³", "unet", dimensions=3, width=8, size=96, patients=4),
)
TINY: Final = (Subject("small_cnn 8²", "small_cnn", dimensions=2, width=4, size=8, patients=4),)
