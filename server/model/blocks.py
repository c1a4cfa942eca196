"""Weights a block at a time: the vectors of a state, wherever they lie, without ever being whole in memory.

A model of 25 million weights is 100 MB, and a state has up to five such vectors. What reads them here asks for one
block after the other: of an array, of a file (``server.model.tensor_file``), or of a formula over both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

BLOCK: Final = 1 << 16  # coordinates; 256 KiB


class Weights(Protocol):
    """A float32 vector (size,) that gives its coordinates ``start`` to ``stop`` as ``weights[start:stop]``."""

    @property
    def size(self) -> int:
        """Number of coordinates."""

    def __getitem__(self, block: slice, /) -> NDArray[Any]:
        """Return a block, float32; it must not be written to."""


@dataclass(frozen=True, eq=False)
class Computed:
    """Weights that a formula gives block by block, anew each time. ``make``: block (start and stop) -> float32."""

    size: int
    make: Callable[[slice], Vector]

    def __getitem__(self, block: slice, /) -> Vector:
        """Return a block."""
        return self.make(block)


def blocks(size: int, length: int | None = None) -> Iterator[slice]:
    """Yield the blocks of a vector of ``size`` in order, each with start and stop. ``length``: BLOCK."""
    step = length or BLOCK
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def part_of(weights: Weights, part: slice) -> Weights:
    """Return the coordinates ``part.start`` to ``part.stop`` as weights of their own."""
    if isinstance(weights, np.ndarray):
        return weights[part]
    first: int = part.start
    return Computed(part.stop - first, lambda block: weights[first + block.start : first + block.stop])


def whole(weights: Weights) -> Vector:
    """Return all coordinates in memory; an array is returned as it is."""
    if isinstance(weights, np.ndarray):
        return weights
    vector = np.empty(weights.size, np.float32)
    for block in blocks(weights.size):
        vector[block] = weights[block]
    return vector


def same_bits(one: Weights, other: Weights) -> bool:
    """Tell whether two vectors are equal to the last bit; an empty one stands for zeros (``optimiser``)."""
    if one is other:
        return True
    size = max(one.size, other.size)
    if any(weights.size not in {0, size} for weights in (one, other)):
        return False
    return all(_bits(one, block).tobytes() == _bits(other, block).tobytes() for block in blocks(size))


def _bits(weights: Weights, block: slice) -> NDArray[Any]:
    return weights[block] if weights.size else np.zeros(block.stop - block.start, np.float32)
