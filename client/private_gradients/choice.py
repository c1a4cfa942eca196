"""Which engine is fastest here: timed on random data, and believed only where it is right and blind to neighbours.

Clipping bounds what a patient adds. It does not bound what a patient does to the *others'* gradients, and arithmetic
can: kernels choose their order of summation by the batch's shape, and some are plainly wrong (torch 2.13, processor,
bfloat16, weight gradient of a 3-D convolution at 2x2x2: different garbage at each call, measured). So stacks have one
fixed shape, and before the first patient is seen each engine must show on public random data that a patient's gradient
is right, repeatable, and the same in another place beside other neighbours. Otherwise bfloat16 is left, or the engine.
"""

import copy
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from client.private_gradients.book_keeping import book_keeping_gradients, unsupported_layers
from client.private_gradients.clipping import patient_norms
from client.private_gradients.problem import Engine, Problem
from client.private_gradients.stacks import PatientStack, public_example
from common.errors import NetworkUnsuitableError

REPETITIONS: Final = 3
TIMINGS: Final = 5
# Against the reference: rounding separates engines by 1e-4 (float32: ties in ReLU and pooling flip) or some percent
# (bfloat16); a wrong gradient is far off.
TOLERANCE: Final = 1e-2
AUTOCAST_TOLERANCE: Final = 0.25
# Against itself beside other neighbours: 0 is expected; 1e-6 C for each of 50 patients stays within the clip's margin.
NEIGHBOUR_TOLERANCE: Final = 1e-6


def choose(
    engines: Mapping[str, Engine], problem: Problem, stack: PatientStack, *, reference: Engine
) -> tuple[Engine, bool]:
    """Return the fastest sound engine, and whether it uses bfloat16 (never if ``problem`` does not ask for it).

    Only the shape of ``stack`` is used: inputs are public random numbers, targets zero, and the network is a copy with
    perturbed weights (a zero head would hide an encoder's gradient), so the choice depends on no patient.
    Raises: NetworkUnsuitableError if no engine is sound, for example because a layer mixes the rows of a batch.
    """
    example = public_example(stack)
    trial = replace(problem, network=_perturbed(problem), autocast=False)
    expected = reference(trial, example)
    for autocast in (True, False) if problem.autocast else (False,):
        trial = replace(trial, autocast=autocast)
        tolerance = AUTOCAST_TOLERANCE if autocast else TOLERANCE
        sound = [engine for engine in engines.values() if _sound(engine, trial, example, expected, tolerance)]
        if sound:
            return _fastest(sound, trial, example), autocast
    raise NetworkUnsuitableError(
        f"no way of computing gradients ({', '.join(engines)}) keeps patients apart in this network; "
        "take a network without batch statistics"
    )


def _sound(engine: Engine, problem: Problem, example: PatientStack, expected: Tensor, tolerance: float) -> bool:
    """Say whether the engine can do this network, agrees with the reference, and keeps patients apart."""
    if engine is book_keeping_gradients and unsupported_layers(problem):
        return False
    try:
        found = engine(problem, example)
        right = _differ(found, expected, tolerance) is False
        return right and not any(_moved(engine, problem, example, found, seed) for seed in range(1, 1 + REPETITIONS))
    except RuntimeError:  # a layer that this engine cannot do
        return False


def _moved(engine: Engine, problem: Problem, example: PatientStack, found: Tensor, seed: int) -> bool:
    """Say whether the first patient's gradient changes in the last place beside others, or on repetition."""
    others = public_example(example, seed=seed)
    others.inputs[-1] = example.inputs[0]
    elsewhere = engine(problem, others)[-1:]
    again = engine(problem, example)
    return _differ(elsewhere, found[:1], NEIGHBOUR_TOLERANCE) or _differ(again, found, NEIGHBOUR_TOLERANCE)


def _differ(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Say whether any patient's gradient differs by more than ``tolerance`` of its norm; NaN differs."""
    return not bool((patient_norms(found - expected) <= tolerance * patient_norms(expected)).all())


def _perturbed(problem: Problem) -> torch.nn.Module:
    """Return a copy of the network whose trained weights are moved by small public random numbers."""
    network = copy.deepcopy(problem.network)
    named = dict(network.named_parameters())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for entry in problem.order.entries:
            noise = torch.randn(entry.shape, generator=generator, dtype=torch.float64)
            named[entry.name].add_(noise.to(named[entry.name]), alpha=0.05)
    return network


def _fastest(engines: list[Engine], problem: Problem, example: PatientStack) -> Engine:
    """Run the engines in turn (the first use, which compiles kernels, came before); the least time of each counts."""
    clock = time.perf_counter if example.inputs.is_cuda or torch.get_num_threads() > 1 else time.thread_time
    best = [float("inf")] * len(engines)
    for _ in range(TIMINGS if len(engines) > 1 else 0):
        for place, engine in enumerate(engines):
            _finish(example)
            start = clock()
            engine(problem, example)
            _finish(example)
            best[place] = min(best[place], clock() - start)
    return engines[best.index(min(best))]


def _finish(example: PatientStack) -> None:
    """Wait for the GPU, whose work is asynchronous."""
    if example.inputs.is_cuda:
        torch.cuda.synchronize(example.inputs.device)
