"""What each network's layers put out and keep for the backward pass, without PyTorch: values for one scan.

A convolution keeps its input, a norm its input, a ReLU its output (which is the next layer's input); sums and means
keep nothing. A test holds the sum against what PyTorch keeps, for every network, in the order of the forward pass.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from common.networks.settings import (
    AUTOENCODER,
    ENCODER,
    LEVEL_HEAD,
    RESIDUAL,
    RESIDUAL_LEVELS,
    SMALL_CNN,
    UNET,
    NetworkSettings,
)

LOSS_MAPS: Final = 4  # of the classes at each voxel: probabilities, their logarithms, chosen ones, products


@dataclass(frozen=True)
class Outputs:
    """One scan through a network.

    ``kept``: values that wait for the backward pass; ``largest``: of one layer; ``products``: multiplications, each
    with its addition, of one forward pass.
    """

    kept: int
    largest: int
    products: int


@dataclass(frozen=True, kw_only=True)
class _Scan(NetworkSettings):
    """The settings, and one scan of ``size`` pixels."""

    size: tuple[int, ...]

    @property
    def inputs(self) -> int:
        """Values of one scan as the network takes it."""
        return self.features or self.channels * self.places(0)

    def places(self, halvings: int, *, up: bool = False) -> int:
        """Return the positions after some halvings, each rounded down, or ``up``."""
        shift = (1 << halvings) - 1 if up else 0
        return math.prod(max(1, (side + shift) >> halvings) for side in self.size)

    def taps(self, kernel: int = 3) -> int:
        return int(kernel ** len(self.size))


Kept = Iterator[tuple[int, int]]  # values that are kept, products that made them


def outputs_of(name: str, *, size: tuple[int, ...], voxelwise: bool = False, **settings: Any) -> Outputs:
    """Return the outputs of the network ``name`` for one scan of ``size`` pixels. ``voxelwise``: a loss at each voxel.

    ``settings``, errors: as ``NetworkSettings``, whose dimensions are those of ``size``.
    """
    wanted = NetworkSettings(name, **{**settings, "dimensions": len(size)})
    return layer_outputs(wanted, size=size, voxelwise=voxelwise)


def layer_outputs(settings: NetworkSettings, *, size: tuple[int, ...], voxelwise: bool = False) -> Outputs:
    """Return the outputs of a network for one scan of ``size`` pixels; it may be smaller than a prior's images."""
    scan = _Scan(**vars(settings), size=size)
    layers = list(_NETWORKS[scan.name](scan))
    kept = sum(values for values, _ in layers) + LOSS_MAPS * scan.classes * scan.places(0) * voxelwise
    return Outputs(kept + scan.inputs, max(values for values, _ in layers), sum(made for _, made in layers))


def _normalised(scan: _Scan, inputs: int, outputs: int, places: int) -> Kept:
    """Convolution and norm; the norm keeps its input, the ReLU its output."""
    yield outputs * places, inputs * outputs * places * scan.taps()
    yield outputs * places, 0


def _encoder(scan: _Scan, *, convolutions: int, levels: int = 3) -> Kept:
    """Three levels, or as many as asked for, of one or two normalised convolutions, halved in between."""
    inputs = scan.channels
    for level in range(levels):
        outputs, places = scan.width << level, scan.places(level)
        if level:
            yield inputs * places, 0  # the mean that halves the level before
        for _ in range(convolutions):
            yield from _normalised(scan, inputs, outputs, places)
            inputs = outputs


def _small_cnn(scan: _Scan) -> Kept:
    yield from _encoder(scan, convolutions=1)
    yield 14 * scan.width, 7 * scan.width * scan.classes


def _autoencoder(scan: _Scan) -> Kept:
    yield from _encoder(scan, convolutions=1)
    yield from _normalised(scan, 4 * scan.width, scan.width, scan.places(2))
    yield scan.width * scan.places(0), scan.channels * scan.width * scan.places(0) * scan.taps()


def _unet(scan: _Scan) -> Kept:
    yield from _encoder(scan, convolutions=2, levels=scan.levels)
    for level in reversed(range(scan.levels - 1)):
        inputs = 3 * scan.width << level
        outputs, places = scan.width << level, scan.places(level)
        yield inputs * places, 0  # both levels side by side
        yield from _normalised(scan, inputs, outputs, places)
        yield from _normalised(scan, outputs, outputs, places)
    yield 0, scan.width * scan.classes * scan.places(0)


def _level_head(scan: _Scan) -> Kept:
    yield from _encoder(scan, convolutions=2, levels=2)
    features = 3 * scan.width * scan.places(0)
    yield features, 0  # the coarser level enlarged, both side by side
    yield features, 3 * scan.width * scan.classes * scan.places(0)


def _residual(scan: _Scan) -> Kept:
    yield scan.width * scan.places(0), scan.channels * scan.width * scan.places(0) * scan.taps()
    inputs = scan.width
    for stage in range(3):
        outputs, places = scan.width << stage, scan.places(stage, up=True)
        for block in range(scan.blocks):
            before = scan.places(max(0, stage - (block == 0)), up=True)
            yield inputs * before, 0
            yield outputs * places, inputs * outputs * places * scan.taps()
            yield outputs * places, outputs * outputs * places * scan.taps()
            yield outputs * places, (inputs != outputs) * inputs * outputs * places
            inputs = outputs
    yield inputs * scan.places(2, up=True), 0
    yield inputs, inputs * scan.classes


def _residual_levels(scan: _Scan) -> Kept:
    """The stages' sums pass a ReLU of their own; the norm keeps the means, the head what the norm makes of them."""
    yield from list(_residual(scan))[:-1]
    for stage in range(2):
        yield (scan.width << stage) * scan.places(stage, up=True), 0
    yield 14 * scan.width, 7 * scan.width * scan.classes


def _feature_head(scan: _Scan) -> Kept:
    """The norm's input is the scan's own row; the head keeps the norm's output, SiLU what goes into it and out."""
    seen = scan.projection or scan.features
    if scan.projection:  # no gradient goes through it; the norm keeps what it gives
        yield seen, scan.features * seen
    yield seen, 0
    if scan.hidden_units:
        yield 2 * scan.hidden_units, seen * scan.hidden_units
    yield 0, (scan.hidden_units or seen) * scan.classes


_NETWORKS: Final[dict[str, Callable[[_Scan], Kept]]] = {
    SMALL_CNN: _small_cnn,
    AUTOENCODER: _autoencoder,
    UNET: _unet,
    LEVEL_HEAD: _level_head,
    RESIDUAL: _residual,
    RESIDUAL_LEVELS: _residual_levels,
    ENCODER: _feature_head,
}
