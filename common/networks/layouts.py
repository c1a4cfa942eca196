"""The fixed order of a network's parameters in one vector, as plain values: places, shapes, and a digest of them.

Only the trainable part of a phase travels, because the noise grows with the square root of its size; a ``Layout`` says
which part that is, and its digest lets both sides refuse a vector of another layout.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from common.networks.errors import NetworkUnsuitableError
from common.networks.prior import PRIOR

EVERYTHING: Final = "everything"
ALL: Final = "all"  # what gradients train
PROJECTION: Final = "projection.weight"  # of an encoder's features: drawn once, public, trained by nobody
UNTRAINED: Final = frozenset({PRIOR, PROJECTION})


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor's place in the vector: ``vector[offset : offset + size]`` reshaped to ``shape``."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The trainable tensors of a network in their fixed order."""

    entries: tuple[Entry, ...]

    @property
    def num_parameters(self) -> int:
        """Length of the vector."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over names, shapes and offsets as compact JSON; equal digests mean equal meaning."""
        rows = [[entry.name, list(entry.shape), entry.offset] for entry in self.entries]
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def layout_of(parameters: Iterable[tuple[str, tuple[int, ...]]], trainable: str | Sequence[str] = EVERYTHING) -> Layout:
    """Return the layout of those of ``parameters`` (name and shape, in order) that ``trainable`` selects.

    ``trainable``: ``"everything"``, ``"all"`` (all that gradients train: everything but a prior and a projection), or a
    prefix, or prefixes of parameter names at a dot (``"head"`` selects ``head.weight`` and ``head.bias``, not
    ``header.weight``); the order of the prefixes does not matter.
    Raises: NetworkUnsuitableError if a prefix selects nothing.
    """
    prefixes = (trainable,) if isinstance(trainable, str) else tuple(trainable)
    shapes = dict(parameters)
    for prefix in prefixes:
        if not any(_selected(name, (prefix,)) for name in shapes):
            tops = ", ".join(dict.fromkeys(name.split(".")[0] for name in shapes))
            raise NetworkUnsuitableError(
                f"trainable part '{prefix}' selects no parameter; choose 'all' or from: {tops}"
            )
    entries: list[Entry] = []
    offset = 0
    for name, shape in shapes.items():
        if _selected(name, prefixes):
            entries.append(Entry(name, shape, offset))
            offset += entries[-1].size
    return Layout(tuple(entries))


def _selected(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(
        prefix in {EVERYTHING, name} or (prefix == ALL and name not in UNTRAINED) or name.startswith(prefix + ".")
        for prefix in prefixes
    )
