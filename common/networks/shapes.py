"""Names and shapes of every network's parameters, without PyTorch: what a plan's layout hash is made of.

Reading a plan should not load 200 MB of PyTorch to know that a head has 226 parameters. The networks themselves are
written elsewhere in this room; a test holds both against each other for every network, dimension and width.
The order is that of ``named_parameters()``, so layers stand here in the order of the network's class.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from common.networks.layouts import PROJECTION
from common.networks.prior import PRIOR
from common.networks.settings import (
    AUTOENCODER,
    ENCODER,
    LEVEL_HEAD,
    RESIDUAL,
    RESIDUAL_LEVELS,
    SMALL_CNN,
    UNET,
    NetworkSettings,
    Shape,
)

Parameters = Iterator[tuple[str, Shape]]


@dataclass(frozen=True)
class _Request(NetworkSettings):
    """The settings, and layers as names and shapes."""

    def convolution(self, name: str, inputs: int, outputs: int, kernel: int = 3) -> Parameters:
        yield f"{name}.weight", (outputs, inputs, *(kernel,) * self.dimensions)
        yield f"{name}.bias", (outputs,)

    def normalised(self, name: str, inputs: int, outputs: int) -> Parameters:
        """Convolution, then norm; the ReLU after them has no parameter."""
        yield from self.convolution(f"{name}.0", inputs, outputs)
        yield from _scale_and_shift(f"{name}.1", outputs)

    def double(self, name: str, inputs: int, outputs: int) -> Parameters:
        yield from self.normalised(f"{name}.0", inputs, outputs)
        yield from self.normalised(f"{name}.1", outputs, outputs)

    def into_levels(self, count: int) -> tuple[tuple[int, int], ...]:
        """Return channels into and out of the first levels of an encoder."""
        outputs = [self.width << level for level in range(count)]
        return tuple(zip([self.channels, *outputs], outputs, strict=False))


def network_parameters(name: str, **settings: Any) -> tuple[tuple[str, Shape], ...]:
    """Return name and shape of each parameter of the network ``name``, in their fixed order.

    ``settings``, errors: as ``NetworkSettings``.
    """
    return parameters_of(NetworkSettings(name, **settings))


def parameters_of(settings: NetworkSettings) -> tuple[tuple[str, Shape], ...]:
    """Return name and shape of each parameter of a network, in their fixed order."""
    return tuple(_NETWORKS[settings.name](_Request(**vars(settings))))


def starts_at_zero(parameter: str) -> bool:
    """Tell whether a parameter is of the last layer, which starts at zero: the first prediction is the uniform one."""
    return parameter.startswith("head.") and not parameter.startswith("head.hidden.")


def _small_cnn(request: _Request) -> Parameters:
    yield from _small_encoder(request)
    features = 7 * request.width
    yield from _scale_and_shift("feature_norm", features)
    yield from _linear("head", features, request.classes)


def _small_encoder(request: _Request) -> Parameters:
    for level, (inputs, outputs) in enumerate(request.into_levels(3)):
        yield from request.normalised(f"encoder.levels.{level}", inputs, outputs)


def _autoencoder(request: _Request) -> Parameters:
    yield from _small_encoder(request)
    yield from request.normalised("decoder", 4 * request.width, request.width)
    yield from request.convolution("head", request.width, request.channels)


def _unet(request: _Request) -> Parameters:
    width = request.width
    if request.prior_size:
        yield PRIOR, (request.classes - 1, *request.prior_size)
    for level, (inputs, outputs) in enumerate(request.into_levels(request.levels)):
        yield from request.double(f"encoder.levels.{level}", inputs, outputs)
    for place, level in enumerate(reversed(range(request.levels - 1))):
        yield from request.double(f"decoder.{place}", 3 * width << level, width << level)
    yield from request.convolution("head", width, request.classes, kernel=1)


def _level_head(request: _Request) -> Parameters:
    if request.prior_size:
        yield PRIOR, (request.classes - 1, *request.prior_size)
    for level, (inputs, outputs) in enumerate(request.into_levels(2)):
        yield from request.double(f"encoder.levels.{level}", inputs, outputs)
    yield from _scale_and_shift("feature_norm", 3 * request.width)
    yield from request.convolution("head", 3 * request.width, request.classes, kernel=1)


def _residual(request: _Request) -> Parameters:
    yield from _residual_encoder(request)
    yield from _linear("head", 4 * request.width, request.classes)


def _residual_levels(request: _Request) -> Parameters:
    features = 7 * request.width
    yield from _residual_encoder(request)
    yield from _scale_and_shift("feature_norm", features)
    yield from _linear("head", features, request.classes)


def _residual_encoder(request: _Request) -> Parameters:
    yield from request.convolution("encoder.0", request.channels, request.width)
    inputs, place = request.width, 1
    for stage in range(3):
        outputs = request.width * 2**stage
        for block in range(request.blocks):
            yield from _residual_block(request, f"encoder.{place}", inputs, outputs, strided=stage > 0 and block == 0)
            inputs, place = outputs, place + 1
    yield from _scale_and_shift(f"encoder.{place}", inputs)


def _residual_block(request: _Request, name: str, inputs: int, outputs: int, *, strided: bool) -> Parameters:
    """Norm, ReLU, convolution, twice; the shortcut is a convolution where the shape changes."""
    for half, channels in (("first", inputs), ("second", outputs)):
        yield from _scale_and_shift(f"{name}.{half}.0", channels)
        yield from request.convolution(f"{name}.{half}.2", channels, outputs)
    if strided or inputs != outputs:
        yield from request.convolution(f"{name}.shortcut", inputs, outputs, kernel=1)


def _feature_head(request: _Request) -> Parameters:
    seen = request.projection or request.features
    if request.projection:
        yield PROJECTION, (request.projection, request.features)
    yield from _scale_and_shift("feature_norm", seen)
    if request.hidden_units:
        yield from _linear("head.hidden", seen, request.hidden_units)
        yield from _linear("head.output", request.hidden_units, request.classes)
    else:
        yield from _linear("head", seen, request.classes)


def _linear(name: str, inputs: int, outputs: int) -> Parameters:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _scale_and_shift(name: str, channels: int) -> Parameters:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


_NETWORKS: Final[dict[str, Callable[[_Request], Parameters]]] = {
    SMALL_CNN: _small_cnn,
    RESIDUAL: _residual,
    RESIDUAL_LEVELS: _residual_levels,
    UNET: _unet,
    LEVEL_HEAD: _level_head,
    AUTOENCODER: _autoencoder,
    ENCODER: _feature_head,
}
