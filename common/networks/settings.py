"""What a network of ours is built from, in one record: every list of these settings is this one.

It is known without PyTorch. Names and shapes of parameters (``shapes``), what layers keep (``outputs``) and the network
itself (``registry``) are made from it; a setting that is new stands here, and where a network reads it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from common.networks.errors import NetworkUnsuitableError

SMALL_CNN: Final = "small_cnn"
RESIDUAL: Final = "residual"
RESIDUAL_LEVELS: Final = "residual_levels"  # the residual encoder, a head on the means of all its stages
UNET: Final = "unet"
AUTOENCODER: Final = "autoencoder"
LEVEL_HEAD: Final = "level_head"  # a head at each voxel on a frozen encoder's levels
ENCODER: Final = "encoder"  # a head on the features of a public encoder (``feature_head``)
IMAGE_NETWORKS: Final = (SMALL_CNN, RESIDUAL, RESIDUAL_LEVELS, UNET, LEVEL_HEAD, AUTOENCODER)
WITH_PRIOR: Final = (UNET, LEVEL_HEAD)
LEAST_LEVELS: Final = 3  # of a U-Net, and as many where nobody says
MOST_LEVELS: Final = 6
NETWORK_NAMES: Final = (*IMAGE_NETWORKS, ENCODER)
CHANNELS_PER_GROUP: Final = 4  # of a norm
LEAST_FEATURES: Final = 2  # of one feature a norm leaves nothing
LEAST_PROJECTED, MOST_PROJECTED = 8, 4096

_LIMITS = {"dimensions": (2, 3), "classes": (1, 256), "width": (CHANNELS_PER_GROUP, 512), "blocks": (1, 8),
           "channels": (1, 3), "features": (0, 1 << 16), "hidden_units": (0, 1024),
           "projection": (0, MOST_PROJECTED),
           "levels": (LEAST_LEVELS, MOST_LEVELS)}  # fmt: skip
Shape = tuple[int, ...]


@dataclass(frozen=True)
class NetworkSettings:
    """A network by name, and how large it is.

    ``width``: channels of the first level, a multiple of 4; ``blocks``: residual blocks a stage; ``channels``: of an
    image, 1 (grey) or 3 (colour). ``features``, ``hidden_units``, ``projection``: of ``encoder``, whose input is
    (batch, features) instead of images. ``levels``: of ``unet``, each half as large as the one before. ``prior_size``:
    of ``unet`` and ``level_head``: images of this size, with a prior.
    Raises: NetworkUnsuitableError for a name that no network has, a value out of bounds, or one the network has not.
    """

    name: str
    dimensions: int
    classes: int
    width: int
    blocks: int = 1
    channels: int = 1
    features: int = 0
    hidden_units: int = 0
    projection: int = 0
    levels: int = LEAST_LEVELS
    prior_size: Shape = ()

    def __post_init__(self) -> None:
        for sentence in self._complaints():
            raise NetworkUnsuitableError(sentence)

    def _complaints(self) -> Iterator[str]:
        name = self.name
        if name not in NETWORK_NAMES:
            yield f"unknown network '{name}'{_nearest(name)}; known: {', '.join(NETWORK_NAMES)}"
        for setting, (low, high) in _LIMITS.items():
            value = getattr(self, setting)
            if type(value) is not int or not low <= value <= high:
                yield f"network {setting} is {value!r}; it must be a whole number {low} to {high}"
        if self.width % CHANNELS_PER_GROUP:
            group = f"{CHANNELS_PER_GROUP} (channels a norm group)"
            yield f"network width is {self.width}; it must be a multiple of {group}"
        if name == ENCODER and self.features < LEAST_FEATURES:
            yield (
                f"network 'encoder' has {self.features} features, a norm needs {LEAST_FEATURES}; name the "
                "encoder's outputs and their length"
            )
        if name != ENCODER and (self.features or self.hidden_units or self.projection):
            yield f"network '{name}' has neither features nor hidden units nor a projection; only '{ENCODER}' has"
        if self.projection and not LEAST_PROJECTED <= self.projection < self.features:
            yield (
                f"network projection is {self.projection}; it must be 0 (none), or {LEAST_PROJECTED} or more and fewer "
                f"than the {self.features} features"
            )
        if name != UNET and self.levels != LEAST_LEVELS:
            yield f"network '{name}' has no levels to choose (levels is {self.levels}); only '{UNET}' has"
        if self.prior_size and (name not in WITH_PRIOR or len(self.prior_size) != self.dimensions):
            have = " and ".join(WITH_PRIOR)
            yield f"network '{name}' in {self.dimensions}-D has no prior of size {self.prior_size}; {have} have"


def _nearest(name: str) -> str:
    near = get_close_matches(name, NETWORK_NAMES, n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""
