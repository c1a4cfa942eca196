"""Names and shapes of every network's parameters, without PyTorch: what a plan's layout hash is made of.

Reading a plan should not load 200 MB of PyTorch to know that a head has 226 parameters. The networks themselves are
written elsewhere in this room; a test holds both against each other for every network, dimension and width.
The order is that of ``named_parameters()``, so layers stand here in the order of the network's class.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from common.networks.errors import NetworkUnsuitableError
from common.networks.prior import PRIOR

SMALL_CNN: Final = "small_cnn"
RESIDUAL: Final = "residual"
RESIDUAL_LEVELS: Final = "residual_levels"  # the residual encoder, a head on the means of all its stages
UNET: Final = "unet"
AUTOENCODER: Final = "autoencoder"
LEVEL_HEAD: Final = "level_head"  # a head at each voxel on a frozen encoder's levels
ENCODER: Final = "encoder"  # a head on the features of a public encoder (``feature_head``)
IMAGE_NETWORKS: Final = (SMALL_CNN, RESIDUAL, RESIDUAL_LEVELS, UNET, LEVEL_HEAD, AUTOENCODER)
WITH_PRIOR: Final = (UNET, LEVEL_HEAD)
NETWORK_NAMES: Final = (*IMAGE_NETWORKS, ENCODER)
CHANNELS_PER_GROUP: Final = 4  # of a norm
LEAST_FEATURES: Final = 2  # of one feature a norm leaves nothing

_LIMITS = {"dimensions": (2, 3), "classes": (1, 256), "width": (CHANNELS_PER_GROUP, 512), "blocks": (1, 8),
           "channels": (1, 3), "features": (0, 1 << 16), "hidden_units": (0, 1024)}  # fmt: skip
_OF_A_HEAD = ("features", "hidden_units")

Shape = tuple[int, ...]
Parameters = Iterator[tuple[str, Shape]]


@dataclass(frozen=True)
class _Request:
    dimensions: int
    classes: int
    width: int
    blocks: int
    channels: int
    features: int
    hidden_units: int
    prior_size: Shape = ()

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

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """Channels into and out of the three levels of an encoder."""
        return (self.channels, self.width), (self.width, 2 * self.width), (2 * self.width, 4 * self.width)


def network_parameters(
    name: str,
    *,
    dimensions: int,
    classes: int,
    width: int,
    blocks: int = 1,
    channels: int = 1,
    features: int = 0,
    hidden_units: int = 0,
    prior_size: Shape = (),
) -> tuple[tuple[str, Shape], ...]:
    """Return name and shape of each parameter of the network ``name``, in their fixed order.

    Raises: NetworkUnsuitableError for an unknown name or a value out of bounds.
    """
    request = _Request(dimensions, classes, width, blocks, channels, features, hidden_units, prior_size)
    check_network(name, **{setting: value for setting, value in vars(request).items() if setting != "prior_size"})
    check_prior(name, dimensions, prior_size)
    return tuple(_NETWORKS[name](request))


def starts_at_zero(parameter: str) -> bool:
    """Tell whether a parameter is of the last layer, which starts at zero: the first prediction is the uniform one."""
    return parameter.startswith("head.") and not parameter.startswith("head.hidden.")


def check_prior(name: str, dimensions: int, prior_size: Shape) -> None:
    """Raise NetworkUnsuitableError for a prior of another size than the network's, or in a network without masks."""
    if prior_size and (name not in WITH_PRIOR or len(prior_size) != dimensions):
        have = " and ".join(WITH_PRIOR)
        raise NetworkUnsuitableError(
            f"network '{name}' in {dimensions}-D has no prior of size {prior_size}; {have} have"
        )


def check_network(name: str, *, dimensions: int, **others: int) -> None:
    """Raise NetworkUnsuitableError for a name that no network has, or a value out of bounds.

    ``others``: classes, width, blocks, channels; features and hidden_units belong to ``encoder`` and to no other.
    """
    if name not in NETWORK_NAMES:
        raise NetworkUnsuitableError(f"unknown network '{name}'{_nearest(name)}; known: {', '.join(NETWORK_NAMES)}")
    asked, width = {"dimensions": dimensions, **others}, others["width"]
    for setting, value in asked.items():
        low, high = _LIMITS[setting]
        if type(value) is not int or not low <= value <= high:
            raise NetworkUnsuitableError(f"network {setting} is {value!r}; it must be a whole number {low} to {high}")
    if width % CHANNELS_PER_GROUP:
        raise NetworkUnsuitableError(
            f"network width is {width}; it must be a multiple of {CHANNELS_PER_GROUP} (channels a norm group)"
        )
    if name == ENCODER and others.get("features", 0) < LEAST_FEATURES:
        raise NetworkUnsuitableError(
            f"network 'encoder' has {others.get('features', 0)} features, a norm needs {LEAST_FEATURES}; name the "
            "encoder's outputs and their length"
        )
    if name != ENCODER and any(others.get(setting) for setting in _OF_A_HEAD):
        raise NetworkUnsuitableError(f"network '{name}' has neither features nor hidden units; only '{ENCODER}' has")


def _small_cnn(request: _Request) -> Parameters:
    yield from _small_encoder(request)
    features = 7 * request.width
    yield from _scale_and_shift("feature_norm", features)
    yield from _linear("head", features, request.classes)


def _small_encoder(request: _Request) -> Parameters:
    for level, (inputs, outputs) in enumerate(request.levels):
        yield from request.normalised(f"encoder.levels.{level}", inputs, outputs)


def _autoencoder(request: _Request) -> Parameters:
    yield from _small_encoder(request)
    yield from request.normalised("decoder", 4 * request.width, request.width)
    yield from request.convolution("head", request.width, request.channels)


def _unet(request: _Request) -> Parameters:
    width = request.width
    if request.prior_size:
        yield PRIOR, (request.classes - 1, *request.prior_size)
    for level, (inputs, outputs) in enumerate(request.levels):
        yield from request.double(f"encoder.levels.{level}", inputs, outputs)
    yield from request.double("decoder.0", 6 * width, 2 * width)
    yield from request.double("decoder.1", 3 * width, width)
    yield from request.convolution("head", width, request.classes, kernel=1)


def _level_head(request: _Request) -> Parameters:
    if request.prior_size:
        yield PRIOR, (request.classes - 1, *request.prior_size)
    for level, (inputs, outputs) in enumerate(request.levels[:2]):
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
    yield from _scale_and_shift("feature_norm", request.features)
    if request.hidden_units:
        yield from _linear("head.hidden", request.features, request.hidden_units)
        yield from _linear("head.output", request.hidden_units, request.classes)
    else:
        yield from _linear("head", request.features, request.classes)


def _linear(name: str, inputs: int, outputs: int) -> Parameters:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _scale_and_shift(name: str, channels: int) -> Parameters:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _nearest(name: str) -> str:
    near = get_close_matches(name, NETWORK_NAMES, n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


_NETWORKS: Final[dict[str, Callable[[_Request], Parameters]]] = {
    SMALL_CNN: _small_cnn,
    RESIDUAL: _residual,
    RESIDUAL_LEVELS: _residual_levels,
    UNET: _unet,
    LEVEL_HEAD: _level_head,
    AUTOENCODER: _autoencoder,
    ENCODER: _feature_head,
}
