"""Which engine is fastest here: timed on random data, and believed only where it agrees with the reference."""

import copy
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch

from client.private_gradients.book_keeping import unsupported_layers
from client.private_gradients.clipping import patient_norms
from client.private_gradients.problem import Engine, Problem
from client.private_gradients.stacks import PatientStack, public_example

REPETITIONS: Final = 3
# Rounding alone separates engines by 1e-4 (float32: ties in ReLU and pooling flip) or some percent (bfloat16);
# a wrong gradient by far more.
TOLERANCE: Final = 2e-2
AUTOCAST_TOLERANCE: Final = 0.25


def fastest(engines: Mapping[str, Engine], problem: Problem, stack: PatientStack, *, reference: str) -> str:
    """Return the name of the fastest engine whose gradients agree with those of ``reference``.

    Only the shape of ``stack`` is used: inputs are public random numbers, targets zero, and the network is a copy with
    perturbed weights (a zero head would hide an encoder's gradient), so the choice depends on no patient.
    """
    example = public_example(stack)
    trial = replace(problem, network=_perturbed(problem))
    expected = engines[reference](trial, example)
    tolerance = AUTOCAST_TOLERANCE if problem.autocast else TOLERANCE
    seconds = {reference: _seconds(engines[reference], trial, example)}
    for name, engine in engines.items():
        if name == reference or (name == "book_keeping" and unsupported_layers(trial)):
            continue
        try:
            difference = engine(trial, example) - expected
        except RuntimeError:  # a layer that this engine cannot do
            continue
        if bool((patient_norms(difference) <= tolerance * patient_norms(expected)).all()):
            seconds[name] = _seconds(engine, trial, example)
    return min(seconds, key=lambda name: seconds[name])


def _perturbed(problem: Problem) -> torch.nn.Module:
    """Return a copy of the network whose trained weights are moved by small public random numbers."""
    network = copy.deepcopy(problem.network)
    named = dict(network.named_parameters())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for entry in problem.order.entries:
            noise = torch.randn(entry.shape, generator=generator, dtype=torch.float64)
            named[entry.name] += 0.05 * noise.to(named[entry.name])
    return network


def _seconds(engine: Engine, problem: Problem, example: PatientStack) -> float:
    """Return the least time of a few runs (the first use, which compiles kernels, came before)."""
    best = float("inf")
    for _ in range(REPETITIONS):
        _finish(example)
        start = time.perf_counter()
        engine(problem, example)
        _finish(example)
        best = min(best, time.perf_counter() - start)
    return best


def _finish(example: PatientStack) -> None:
    """Wait for the GPU, whose work is asynchronous."""
    if example.inputs.is_cuda:
        torch.cuda.synchronize(example.inputs.device)
