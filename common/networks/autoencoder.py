"""An autoencoder around the small classifier's encoder: the label-free task of the study plan.

Its ``encoder.*`` parameters have the names, shapes and order of ``SmallCnn.encoder``: a phase that learns to
reconstruct hands its encoder to the next phase by name.
"""

from torch import Tensor, nn
from torch.nn import functional

from common.networks.layers import convolution, normalised_convolution
from common.networks.small_cnn import SmallEncoder


class Autoencoder(nn.Module):
    """The small encoder, one convolution, and enlargement back to the image.

    Shapes: images (batch, channels, *size) float32, each side at least 4 -> a reconstruction of the same shape.
    """

    def __init__(self, *, dimensions: int, width: int, channels: int = 1) -> None:
        super().__init__()
        self.encoder = SmallEncoder(dimensions, width, channels)
        self.decoder = normalised_convolution(dimensions, 4 * width, width)
        self.head = convolution(dimensions, width, channels)

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, channels, *size) to a reconstruction of the same shape."""
        features = self.decoder(self.encoder(images)[-1])
        enlarged = functional.interpolate(features, size=images.shape[2:], mode="nearest")
        reconstruction: Tensor = self.head(enlarged)
        return reconstruction
