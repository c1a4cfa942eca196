"""Which engine is fastest here: timed on random data, and believed only where it is right and blind to neighbours.

Clipping bounds what a patient adds. It does not bound what a patient does to the *others'* gradients, and arithmetic
can: kernels choose their order of summation by the batch's shape, and some are plainly wrong. So stacks have one fixed
shape, and before the first patient is seen each engine must show on public random data that a patient's gradient is
right, repeatable, and the same in another place beside other neighbours. Otherwise bfloat16 is left, or the engine.
What is wrong only now and then may pass a trial, so what is known to be is never tried: torch 2.13 on a processor,
bfloat16, weight gradient of a 3-D convolution at 2x2x2 (different garbage at some calls, measured).
"""

import copy
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn

from client.private_gradients.clipping import LatticeSum, patient_norms
from client.private_gradients.compiled import COMPILED
from client.private_gradients.problem import Engine, Problem
from client.private_gradients.stacks import PatientStack, public_example
from common.networks.errors import NetworkUnsuitableError

REPETITIONS: Final = 3
TIMINGS: Final = 5
WORTHWHILE: Final = 0.97  # a smaller part must save this much, or noise in the timing would decide
# Against the reference: rounding separates engines by 1e-4 (float32: ties in ReLU and pooling flip) or some percent
# (bfloat16); a wrong gradient is far off.
TOLERANCE: Final = 1e-2
AUTOCAST_TOLERANCE: Final = 0.25
# Against itself beside other neighbours: 0 is expected, and found on every processor measured (no GPU was). Where a
# kernel moves a neighbour by up to this much, rounding to the lattice can make sqrt(1e-6 C step sqrt(d)) of it: 1e-4 C.
NEIGHBOUR_TOLERANCE: Final = 1e-6


@dataclass(frozen=True)
class Way:
    """How the gradients of a stack are computed: by which engine, how many patients at a time, whether in bfloat16."""

    name: str
    engine: Engine
    patients: int
    autocast: bool

    def gradients(self, problem: Problem, stack: PatientStack) -> Iterator[Tensor]:
        """Yield the gradients of consecutive patients, each (patients, num_parameters)."""
        problem = problem.with_autocast(self.autocast)
        for part in stack.parts(self.patients):
            yield self.engine(problem, part)

    def add_to(self, total: LatticeSum, problem: Problem, stack: PatientStack, *, clipping_norm: float) -> None:
        """Add the patients' gradients, each clipped, to ``total``."""
        for gradients in self.gradients(problem, stack):
            total.add(gradients, clipping_norm=clipping_norm)
            del gradients  # its memory serves the next part


@dataclass(frozen=True)
class _Trial:
    """Public random data of a stack's shape, a perturbed copy of the network, and the right answer to both."""

    problem: Problem
    example: PatientStack
    expected: Tensor

    def sound(self, way: Way) -> bool:
        """Say whether the way can do this network, agrees with the reference, and keeps patients apart."""
        try:
            found = self._run(way, self.example)
            right = not _differ(found, self.expected, AUTOCAST_TOLERANCE if way.autocast else TOLERANCE)
            return right and not any(self._moved(way, found, seed) for seed in range(1, 1 + REPETITIONS))
        except RuntimeError:  # a layer that this engine cannot do
            return False

    def fastest(self, ways: list[Way]) -> Way:
        """Return the fastest of ``ways``; then ever smaller parts of the stack are tried, as long as they are faster.

        Small parts stay in the cache and use the allocator's memory again; large ones need fewer calls. A single way,
        the site's own choice, is taken as it is.
        """
        if len(ways) == 1:
            return ways[0]
        way = min(zip(self._seconds(ways), ways, strict=True), key=lambda timed: timed[0])[1]
        while way.patients % 2 == 0 and way.name != COMPILED:  # another shape is another minute of compilation
            smaller = replace(way, patients=way.patients // 2)
            if not self.sound(smaller):
                break
            before, after = self._seconds([way, smaller])
            if after > WORTHWHILE * before:
                break
            way = smaller
        return way

    def _run(self, way: Way, stack: PatientStack) -> Tensor:
        return torch.cat(list(way.gradients(self.problem, stack)))

    def _moved(self, way: Way, found: Tensor, seed: int) -> bool:
        """Say whether the first patient's gradient changes in the last place beside others, or on repetition."""
        others = public_example(self.example, seed=seed)
        others.inputs[-1] = self.example.inputs[0]
        elsewhere = self._run(way, others)[-1:]
        again = self._run(way, self.example)
        return _differ(elsewhere, found[:1], NEIGHBOUR_TOLERANCE) or _differ(again, found, NEIGHBOUR_TOLERANCE)

    def _seconds(self, ways: list[Way]) -> list[float]:
        """Run the ways in turn (the first use, which compiles kernels, came before); the least time of each counts."""
        example = self.example
        clock = time.perf_counter if example.inputs.is_cuda or torch.get_num_threads() > 1 else time.thread_time
        best = [float("inf")] * len(ways)
        for _ in range(TIMINGS):
            for place, way in enumerate(ways):
                _finish(example)
                start = clock()
                _drain(way.gradients(self.problem, example))
                _finish(example)
                best[place] = min(best[place], clock() - start)
        return best


def choose(engines: Mapping[str, Engine], problem: Problem, stack: PatientStack, *, reference: Engine) -> Way:
    """Return the fastest sound way; it uses bfloat16 only if ``problem`` asks for it and that keeps patients apart.

    Only the shape of ``stack`` is used: inputs are public random numbers, targets zero, and the network is a copy with
    perturbed weights (a zero head would hide an encoder's gradient), so the choice depends on no patient. The reference
    itself, one patient at a time, has neighbours no more than it has rivals: it is taken without a trial, which would
    hold the gradient several times.
    Raises: NetworkUnsuitableError if no engine is sound, for example because a layer mixes the rows of a batch.
    """
    if list(engines.values()) == [reference] and stack.patients == 1 and not problem.autocast:
        return Way(next(iter(engines)), reference, 1, autocast=False)
    example = public_example(stack)
    plain = replace(problem, network=_perturbed(problem), autocast=False)
    trial = _Trial(plain, example, reference(plain, example))
    for autocast in (True, False) if problem.autocast and not _known_to_be_wrong(problem) else (False,):
        ways = [Way(str(name), engine, stack.patients, autocast) for name, engine in engines.items()]
        sound = [way for way in ways if trial.sound(way)]
        if sound:
            return trial.fastest(sound)
    raise NetworkUnsuitableError(
        f"no way of computing gradients ({', '.join(engines)}) keeps patients apart in this network; "
        "take a network without batch statistics"
    )


def _known_to_be_wrong(problem: Problem) -> bool:
    """Say whether bfloat16 is known to give other gradients of this network at some calls; see the module's words."""
    trained_in_3d = any(isinstance(layer, nn.Conv3d | nn.ConvTranspose3d) for layer in problem.trained_layers)
    return trained_in_3d and problem.device.type == "cpu"


def _differ(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Say whether any patient's gradient differs by more than ``tolerance`` of its norm; NaN differs."""
    return not bool((patient_norms(found - expected) <= tolerance * patient_norms(expected)).all())


def _perturbed(problem: Problem) -> nn.Module:
    """Return a copy of the network whose trained weights are moved by small public random numbers."""
    network = copy.deepcopy(problem.network)
    named = dict(network.named_parameters())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for entry in problem.order.entries:
            noise = torch.randn(entry.shape, generator=generator, dtype=torch.float64)
            named[entry.name].add_(noise.to(named[entry.name]), alpha=0.05)
    return network


def _drain(parts: Iterable[Tensor]) -> None:
    """Take the parts one after the other, as the clipped sum does; only one is in memory."""
    for part in parts:
        del part


def _finish(example: PatientStack) -> None:
    """Wait for the GPU, whose work is asynchronous."""
    if example.inputs.is_cuda:
        torch.cuda.synchronize(example.inputs.device)
