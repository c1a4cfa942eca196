"""Vectors within the range in every coordinate that are longer than a hospital's patients can make them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from client.secagg.state import Contribution
from common.secagg.refusals import Check
from common.secagg.stages import Kind
from simulation.attacks.arena import COLLUDER, Arena, Attack

_LIMIT: Final = 4000.0  # units of the lattice: honest sums of the made-up hospitals stay below a quarter of it

_Shape = Callable[[int], NDArray[Any]]  # number of coordinates -> what the vector is in each, in [-1, 1]


def _alternating(size: int) -> NDArray[Any]:
    return 1.0 - 2.0 * (np.arange(size) % 2)


def _one(size: int) -> NDArray[Any]:
    vector: NDArray[Any] = np.zeros(size)
    vector[0] = 1.0
    return vector


_SHAPES: dict[str, _Shape] = {
    "the end of the range everywhere": np.ones,
    "the other end of the range everywhere": lambda size: -np.ones(size),
    "the ends of the range in turn": _alternating,
    "the end of the range in one coordinate": _one,
    "a hundredth of the range everywhere": lambda size: np.full(size, 0.01),
}


def _poison(shape: _Shape) -> Callable[[Arena], None]:
    def play(arena: Arena) -> None:
        order = arena.new_order()
        honest, limit = arena.federation.work[COLLUDER].draw, order.vector.lattice.limit

        def draw(attempt: int) -> Contribution:
            made = honest(attempt)
            return replace(made, body=np.rint(limit * shape(order.body_length)).astype(np.int32))

        arena.federation.work[COLLUDER].draw = draw
        server, packets = arena.run_until(Kind.CERTIFICATE, order, largest_norm=lambda _: _LIMIT)
        arena.federation.deliver(server, packets)
        arena.close(server.finish)

    return play


POISONING = [
    Attack(f"site adds {what}: more than its patients can", Check.C_NORM, _poison(shape))
    for what, shape in _SHAPES.items()
]
