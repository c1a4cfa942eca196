"""A head on the features of a public encoder: all that a plan with ``network.name = "encoder"`` trains.

The encoder is data (an ONNX file, ``common.encoders``), frozen, and the same at every hospital; what it makes of a scan
is computed once and kept (``client.features``), so a round works on vectors.
"""

import math

from torch import Tensor, nn
from torch.nn import functional


class HiddenHead(nn.Module):
    """One hidden layer: (batch, features) -> SiLU of (batch, hidden_units) -> (batch, classes)."""

    def __init__(self, *, features: int, classes: int, hidden_units: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden_units)
        self.activation = nn.SiLU()
        self.output = nn.Linear(hidden_units, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, features) to logits (batch, classes)."""
        logits: Tensor = self.output(self.activation(self.hidden(features)))
        return logits


class FeatureHead(nn.Module):
    """A norm of each image's features, division by sqrt(features), a linear head or one with a hidden layer.

    ``projection``: that many sums of the layer-normed features take their place, with public drawn weights that nobody
    trains (Johnson & Lindenstrauss 1984): fewer numbers travel, and noise falls on fewer.

    ``feature_norm`` (layer norm of one image) puts the features of each image on one scale; the ``standardise`` phase
    sets its scale and shift. Divided by sqrt(features), standardised ones have norm about 1, the clipping norm's order.
    Shapes: (batch, features) float32 -> logits (batch, classes) float32.
    Parameters: features (2 + classes) + classes; ``hidden_units`` H: features (2 + H) + H + H classes + classes.
    """

    def __init__(self, *, features: int, classes: int, hidden_units: int = 0, projection: int = 0) -> None:
        super().__init__()
        self.projection = nn.Linear(features, projection, bias=False) if projection else None
        features = projection or features
        self.feature_norm = nn.GroupNorm(1, features)
        self.head: nn.Module = (
            HiddenHead(features=features, classes=classes, hidden_units=hidden_units)
            if hidden_units
            else nn.Linear(features, classes)
        )

    def features(self, images: Tensor) -> Tensor:
        """Return what the head sees: the normalised rows (batch, features) over sqrt(features)."""
        if self.projection is not None:
            images = self.projection(functional.layer_norm(images, (self.projection.in_features,)))
        normalised: Tensor = self.feature_norm(images)
        return normalised / math.sqrt(normalised.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """Map the encoder's features of images, (batch, features), to logits (batch, classes)."""
        logits: Tensor = self.head(self.features(images))
        return logits
