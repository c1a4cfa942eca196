"""``PrivateGradient``: sampled patients in, clipped sum out. The training page knows nothing else of this package."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from client.private_gradients.book_keeping import book_keeping_gradients
from client.private_gradients.choice import fastest
from client.private_gradients.clipping import ClippedSum
from client.private_gradients.loop import loop_gradients
from client.private_gradients.problem import Criterion, Engine, Problem
from client.private_gradients.stacks import PatientStack
from client.private_gradients.vectorised import vmap_gradients
from common.parameters import Layout, train_only


class EngineName(StrEnum):
    """Which engine computes the gradients. A setting of speed: the result is the same to rounding."""

    AUTO = "auto"
    LOOP = "loop"
    VMAP = "vmap"
    BOOK_KEEPING = "book_keeping"


ENGINES: dict[str, Engine] = {
    EngineName.LOOP: loop_gradients,
    EngineName.VMAP: vmap_gradients,
    EngineName.BOOK_KEEPING: book_keeping_gradients,
}


@dataclass(frozen=True)
class SpeedSettings:
    """The site's own settings: they change time and memory, never the clip or the guarantee.

    engine: ``auto`` times all engines that fit on random data of the first stack's shape and keeps the fastest.
    autocast: bfloat16 forward and backward; gradients, norms and sums stay float32 or wider.
    """

    engine: EngineName = EngineName.AUTO
    autocast: bool = False


class PrivateGradient:
    """Clipped sums of per-patient gradients of one network.

    ``network`` is used where it lives (processor or GPU), in the mode it is in; only the parameters of ``order`` are
    trained, the others lose ``requires_grad``. It must have no layer that mixes rows (BatchNorm) and no dropout.
    """

    def __init__(self, network: nn.Module, order: Layout, settings: SpeedSettings | None = None) -> None:
        self._network, self._order = network, order
        self._settings = settings or SpeedSettings()
        self._chosen: dict[tuple[object, ...], str] = {}
        train_only(network, order)

    def clipped_sum(self, stacks: Iterable[PatientStack], criterion: Criterion, *, clipping_norm: float) -> Tensor:
        """Return the sum over all patients of their gradients, each clipped to ``clipping_norm``.

        Shapes: result float64 (num_parameters,) on the network's device, in the order of the layout.
        ``stacks`` is read one at a time, so memory is bounded by one stack; a lazy iterable may load, augment and
        label there. Call once for each stratum, with its own clipping norm and criterion, and add the results.
        Guarantee: adding or removing one patient moves the result by at most ``clipping_norm``, whatever the values
        (NaN and inf included); no stacks, or padding only, give exactly zero. Nothing else is returned or kept.
        """
        problem = Problem(self._network, self._order, criterion, self._settings.autocast)
        clipped = ClippedSum(self._order.num_parameters, clipping_norm, problem.device)
        for stack in stacks:
            silenced = stack.silenced()
            clipped.add(self._engine(problem, silenced)(problem, silenced))
        return clipped.total

    def _engine(self, problem: Problem, stack: PatientStack) -> Engine:
        """Return the engine for this criterion and shape; the choice sees no patient."""
        if self._settings.engine != EngineName.AUTO:
            return ENGINES[self._settings.engine]
        key = (problem.criterion, stack.inputs.shape, stack.inputs.dtype)
        if key not in self._chosen:
            self._chosen[key] = fastest(ENGINES, problem, stack, reference=EngineName.LOOP)
        return ENGINES[self._chosen[key]]
