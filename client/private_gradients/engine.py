"""``PrivateGradient``: sampled patients in, clipped sum out. The training page knows nothing else of this package."""

import logging
from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import nn

from client.private_gradients.book_keeping import book_keeping_gradients, unsupported_layers
from client.private_gradients.choice import Way, choose
from client.private_gradients.clipping import LatticeSum
from client.private_gradients.compiled import COMPILED, CompiledGradients
from client.private_gradients.lattice import finest_step
from client.private_gradients.layer_by_layer import LayerByLayer
from client.private_gradients.loop import loop_gradients
from client.private_gradients.problem import Criterion, Engine, Problem
from client.private_gradients.settings import EngineName, SpeedSettings
from client.private_gradients.stacks import PatientStack
from client.private_gradients.vectorised import vmap_gradients
from common.networks.parameters import Layout, train_only

ENGINES: dict[str, Engine] = {
    EngineName.LOOP: loop_gradients,
    EngineName.VMAP: vmap_gradients,
    EngineName.BOOK_KEEPING: book_keeping_gradients,
}

# What the gradients of one stack may take, whatever the site asked for: a choice of engine holds a few such matrices.
CPU_GRADIENT_BYTES: Final = 128 << 20
GPU_GRADIENT_BYTES: Final = 8 << 30
# From here on one patient's gradient is not held whole on a processor: below, little memory would be saved, for time.
CPU_WHOLE_GRADIENT_BYTES: Final = 16 << 20


_log = logging.getLogger("fedward.site")

# Choices of this process: many simulated sites share one network, and a choice depends on no site.
_KNOWN: dict[tuple[object, ...], Way] = {}


class PrivateGradient:
    """Clipped sums of per-patient gradients of one network.

    ``network`` is used where it lives (processor or GPU), in the mode it is in; only the parameters of ``order`` are
    trained, the others lose ``requires_grad``. It must have no layer that mixes rows (BatchNorm) and no dropout.
    """

    def __init__(self, network: nn.Module, order: Layout, settings: SpeedSettings | None = None) -> None:
        self._network, self._order = network, order
        self._settings = settings or SpeedSettings()
        self._chosen: dict[tuple[object, ...], Way | LayerByLayer] = {}
        self._architecture = (_name(type(network)), str(network), order.digest)
        train_only(network, order)

    @property
    def engine_names(self) -> list[str]:
        """Names of the engines chosen so far, for people who look at speed."""
        return [way.name + (" bfloat16" if way.autocast else "") for way in self._chosen.values()]

    def clipped_sum(
        self,
        stacks: Iterable[PatientStack],
        criterion: Criterion,
        *,
        clipping_norm: float,
        total: LatticeSum | None = None,
    ) -> LatticeSum:
        """Add all patients' gradients, each clipped to ``clipping_norm``, to ``total``, and return it.

        ``total``: a sum in the order of the layout on the network's device; None: a new one on the finest lattice.
        ``stacks`` is read one at a time, so memory is bounded by one stack; a lazy iterable may load, augment and
        label there. All stacks must have one public shape. Call once for each stratum, with its own clipping norm and
        criterion, into one total. ``criterion`` should be one object for the whole training: the choice of an
        engine (a few runs) is remembered by it and by the shape.
        Guarantee: that of ``LatticeSum``, whatever the values (NaN and inf included); no stacks, or padding only, add
        exactly zero. Nothing else is returned or kept.
        Raises: NetworkUnsuitableError if the network mixes patients; ValueError unless 0 < clipping_norm < inf.
        """
        problem = Problem(self._network, self._order, criterion, self._settings.autocast)
        if total is None:
            step = finest_step(clipping_norm, self._order.num_parameters)
            total = LatticeSum(self._order.num_parameters, step=step, device=problem.device)
        for stack in stacks:
            self._way(problem, stack).add_to(total, problem, stack.silenced(), clipping_norm=clipping_norm)
        return total

    def _way(self, problem: Problem, stack: PatientStack) -> Way | LayerByLayer:
        """Return the way to the gradients for this criterion and shape; sees no patient."""
        key = (problem.criterion, stack.inputs.shape, stack.inputs.dtype)
        if key not in self._chosen:
            if self._layer_by_layer(problem, stack):
                self._chosen[key] = LayerByLayer()
            elif self._settings.compile:
                self._chosen[key] = self._compared(problem, stack)
            else:
                self._chosen[key] = self._known(problem, stack)
        return self._chosen[key]

    def _layer_by_layer(self, problem: Problem, stack: PatientStack) -> bool:
        """Say whether memory decides: one patient at a time, large gradients, a processor, and only known layers."""
        free = self._settings == SpeedSettings(EngineName.AUTO) and problem.device.type == "cpu"
        large = 4 * self._order.num_parameters >= CPU_WHOLE_GRADIENT_BYTES
        return free and large and stack.patients == 1 and not unsupported_layers(problem)

    def _known(self, problem: Problem, stack: PatientStack) -> Way:
        """Return the choice that this process made for such a network, or make it."""
        shared = (self._architecture, *_kind_of(problem, stack), self._settings)
        if shared not in _KNOWN:
            _KNOWN[shared] = choose(self._engines(stack), problem, stack, reference=loop_gradients)
        return _KNOWN[shared]

    def _compared(self, problem: Problem, stack: PatientStack) -> Way:
        """Choose with a compiled engine among the candidates; it belongs to one criterion, so it is not shared."""
        compiled = CompiledGradients(problem)
        way = choose({**self._engines(stack), COMPILED: compiled}, problem, stack, reference=loop_gradients)
        if way.name == COMPILED:
            compiled.trusted = True
        else:
            reason = f"it failed ({compiled.failure})" if compiled.failure else f"{way.name} is faster or more exact"
            _log.warning("torch.compile is not used: %s; the gradients and their clip are the same without it", reason)
        return way

    def _engines(self, stack: PatientStack) -> dict[str, Engine]:
        """Return the candidates; one patient at a time, where gradients are large, is what the loop is for."""
        name = self._settings.engine
        if name == EngineName.AUTO and stack.patients == 1:
            name = EngineName.LOOP
        return ENGINES if name == EngineName.AUTO else {name: ENGINES[name]}


def patients_that_fit(num_parameters: int, device: torch.device) -> int:
    """Return the power of two of patients whose gradients fit into ``CPU_GRADIENT_BYTES`` (GPU: the larger limit)."""
    limit = CPU_GRADIENT_BYTES if device.type == "cpu" else GPU_GRADIENT_BYTES
    return 1 << max(0, (limit // (4 * max(1, num_parameters))).bit_length() - 1)


def _kind_of(problem: Problem, stack: PatientStack) -> tuple[object, ...]:
    """Return what a choice depends on besides the network: criterion, shapes, device, threads."""
    criterion = problem.criterion if hasattr(problem.criterion, "__qualname__") else type(problem.criterion)
    shapes = [(tensor.shape, tensor.dtype) for tensor in (stack.inputs, *stack.targets)]
    return (_name(criterion), *shapes, str(problem.device), torch.get_num_threads())


def _name(thing: Any) -> str:
    """Return where a class or function is written: two of the same local name must not share a choice."""
    return f"{thing.__module__}.{thing.__qualname__}"
