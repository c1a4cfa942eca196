"""``PrivateGradient``: sampled patients in, clipped sum out. The training page knows nothing else of this package."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from client.private_gradients.book_keeping import book_keeping_gradients
from client.private_gradients.choice import choose
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

    engine: ``auto`` times all sound engines on random data of the first stack's shape and keeps the fastest.
    autocast: bfloat16 forward and backward where that keeps patients apart (``choice``), float32 elsewhere; gradients,
    norms and sums are float32 or wider in any case.
    """

    engine: EngineName = EngineName.AUTO
    autocast: bool = False


# Choices of this process: many simulated sites share one network, and a choice depends on no site.
_KNOWN: dict[tuple[object, ...], tuple[Engine, bool]] = {}


class PrivateGradient:
    """Clipped sums of per-patient gradients of one network.

    ``network`` is used where it lives (processor or GPU), in the mode it is in; only the parameters of ``order`` are
    trained, the others lose ``requires_grad``. It must have no layer that mixes rows (BatchNorm) and no dropout.
    """

    def __init__(self, network: nn.Module, order: Layout, settings: SpeedSettings | None = None) -> None:
        self._network, self._order = network, order
        self._settings = settings or SpeedSettings()
        self._chosen: dict[tuple[object, ...], tuple[Engine, bool]] = {}
        self._architecture = (_name(type(network)), str(network), order.digest)
        train_only(network, order)

    @property
    def engine_names(self) -> list[str]:
        """Names of the engines chosen so far, for people who look at speed."""
        names = {engine: str(name) for name, engine in ENGINES.items()}
        return [names[engine] + (" bfloat16" if autocast else "") for engine, autocast in self._chosen.values()]

    def clipped_sum(self, stacks: Iterable[PatientStack], criterion: Criterion, *, clipping_norm: float) -> Tensor:
        """Return the sum over all patients of their gradients, each clipped to ``clipping_norm``.

        Shapes: result float64 (num_parameters,) on the network's device, in the order of the layout.
        ``stacks`` is read one at a time, so memory is bounded by one stack; a lazy iterable may load, augment and
        label there. All stacks must have one public shape. Call once for each stratum, with its own clipping norm and
        criterion, and add the results. ``criterion`` should be one object for the whole training: the choice of an
        engine (a few runs) is remembered by it and by the shape.
        Guarantee: adding or removing one patient moves the result by at most ``clipping_norm``, whatever the values
        (NaN and inf included); no stacks, or padding only, give exactly zero. Nothing else is returned or kept.
        Raises: NetworkUnsuitableError if the network mixes patients.
        """
        problem = Problem(self._network, self._order, criterion, self._settings.autocast)
        clipped = ClippedSum(self._order.num_parameters, clipping_norm, problem.device)
        for stack in stacks:
            engine, autocast = self._engine(problem, stack)
            clipped.add(engine(replace(problem, autocast=autocast), stack.silenced()))
        return clipped.total

    def _engine(self, problem: Problem, stack: PatientStack) -> tuple[Engine, bool]:
        """Return the engine for this criterion and shape, and whether it may use bfloat16; sees no patient."""
        key = (problem.criterion, stack.inputs.shape, stack.inputs.dtype)
        if key not in self._chosen:
            shared = (self._architecture, *_kind_of(problem, stack), self._settings)
            if shared not in _KNOWN:
                name = self._settings.engine
                candidates: dict[str, Engine] = ENGINES if name == EngineName.AUTO else {name: ENGINES[name]}
                _KNOWN[shared] = choose(candidates, problem, stack, reference=loop_gradients)
            self._chosen[key] = _KNOWN[shared]
        return self._chosen[key]


def _kind_of(problem: Problem, stack: PatientStack) -> tuple[object, ...]:
    """Return what a choice depends on besides the network: criterion, shapes, device, threads."""
    criterion = problem.criterion if hasattr(problem.criterion, "__qualname__") else type(problem.criterion)
    shapes = [(tensor.shape, tensor.dtype) for tensor in (stack.inputs, *stack.targets)]
    return (_name(criterion), *shapes, str(problem.device), torch.get_num_threads())


def _name(thing: Any) -> str:
    """Return where a class or function is written: two of the same local name must not share a choice."""
    return f"{thing.__module__}.{thing.__qualname__}"
