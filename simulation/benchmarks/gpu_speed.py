"""Times on a device: one private step beside a plain one, in float32 and bfloat16, in both memory formats.

A private step is what the trainer does: each patient's gradient, clip, sum, and the integers on the processor (noise is
the agent's). A plain step: forward, backward and SGD on the same scans. ``busy``: time in which the device computes
over the private step's time. ``graph``: the private gradients captured as a CUDA graph, where that works and gives the
same bits; over the time without.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import torch
from torch import Tensor, nn

from client.private_gradients.book_keeping import book_keeping_gradients
from client.private_gradients.budget import Budget, Spending
from client.private_gradients.clipping import LatticeSum
from client.private_gradients.engine import PrivateGradient
from client.private_gradients.problem import Problem
from client.private_gradients.settings import SpeedSettings
from client.private_gradients.stacks import PatientRows, rows_together
from client.private_gradients.verdict import RememberedVerdicts
from common.networks.parameters import layout
from simulation.benchmarks.gpu_subjects import SUBJECTS, TINY, Subject
from simulation.benchmarks.training_subjects import cross_entropy

TURNS: Final = 7
FORMATS: Final = {2: torch.channels_last, 3: torch.channels_last_3d}
MB: Final = 1e6


@dataclass(frozen=True)
class SpeedRow:
    """One network in one precision and memory format; ``reason``: why nothing was measured, "" if it was."""

    model: str
    parameters: int
    patients: int
    precision: str
    memory_format: str
    reason: str = ""
    engine: str = ""
    plain_ms: float = 0.0
    private_ms: float = 0.0
    ratio_to_plain: float = 0.0
    busy: float = 0.0
    peak_mb: float = 0.0
    plain_peak_mb: float = 0.0
    trial_s: float = 0.0
    graph: str = ""


def rows(device: str, *, deadline_s: float, small: bool = False) -> Iterator[SpeedRow]:
    """Yield a row for each network, precision and memory format; after ``deadline_s`` (monotonic) only their names."""
    for subject in TINY if small else SUBJECTS:
        for autocast in (False, True):
            for channels_last in (False, True):
                yield _row(subject, device, deadline_s, autocast=autocast, channels_last=channels_last)


def _row(subject: Subject, device: str, deadline_s: float, *, autocast: bool, channels_last: bool) -> SpeedRow:
    network = subject.build(device)
    named = SpeedRow(
        model=subject.model,
        parameters=layout(network).num_parameters,
        patients=subject.patients,
        precision="bfloat16" if autocast else "float32",
        memory_format="channels_last" if channels_last else "contiguous",
    )
    if time.monotonic() > deadline_s:
        return SpeedRow(**{**vars(named), "reason": "no time left"})
    try:
        return _measured(named, subject, device, autocast=autocast, channels_last=channels_last)
    except torch.OutOfMemoryError:
        return SpeedRow(**{**vars(named), "reason": "memory ended"})


def _measured(named: SpeedRow, subject: Subject, device: str, *, autocast: bool, channels_last: bool) -> SpeedRow:
    patients = subject.scans(device)
    network, plain_network = subject.build(device), subject.build(device)
    if channels_last:
        memory_format = FORMATS[subject.dimensions]
        for each in (network, plain_network):
            each.to(memory_format=memory_format)  # type: ignore[call-overload]
        patients = [
            PatientRows(each.inputs.contiguous(memory_format=memory_format), each.targets, each.weights)
            for each in patients
        ]
    gradient = PrivateGradient(network, layout(network), SpeedSettings(autocast=autocast), RememberedVerdicts())
    began_s = time.monotonic()
    gradient.measure(patients[0], cross_entropy, at_once=len(patients), most_rows=1, spending=Spending(Budget()))
    trial_s = time.monotonic() - began_s
    private = _private_step(gradient, patients, device)
    plain = _plain_step(plain_network, patients, autocast=autocast)
    for step in (private, plain, private, plain):
        step()
    turns = [(_seconds(plain, device), _seconds(private, device)) for _ in range(TURNS)]
    return SpeedRow(
        **{
            **vars(named),
            "engine": ", ".join(gradient.engine_names),
            "plain_ms": round(1000 * median(turn[0] for turn in turns), 2),
            "private_ms": round(1000 * median(turn[1] for turn in turns), 2),
            "ratio_to_plain": round(median(turn[1] / turn[0] for turn in turns), 3),
            "busy": _busy(private, device),
            "peak_mb": _peak_mb(private, device),
            "plain_peak_mb": _peak_mb(plain, device),
            "trial_s": round(trial_s, 2),
            "graph": _graph(Problem(network, layout(network), cross_entropy, autocast), patients, device),
        }
    )


def _private_step(gradient: PrivateGradient, patients: list[PatientRows], device: str) -> Callable[[], object]:
    count = gradient.num_parameters

    def step() -> Tensor:
        total = LatticeSum(count, step=2.0**-24, device=torch.device(device))
        gradient.add(patients, cross_entropy, clipping_norm=1.0, total=total, at_once=len(patients), most_rows=1)
        return total.values.cpu()

    return step


def _plain_step(network: nn.Module, patients: list[PatientRows], *, autocast: bool) -> Callable[[], object]:
    images = torch.cat([each.inputs for each in patients])
    labels = torch.cat([each.targets[0] for each in patients])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=autocast):
            outputs = network(images)
        cross_entropy(outputs.float(), labels).mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def _seconds(step: Callable[[], object], device: str) -> float:
    _wait(device)
    began_s = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - began_s


def _busy(step: Callable[[], object], device: str) -> float:
    """Return the share of a step in which the device computes; 0 where PyTorch's profiler cannot tell."""
    if not device.startswith("cuda"):
        return 0.0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        seconds = _seconds(step, device)
    device_s = sum(getattr(event, "self_device_time_total", 0.0) for event in profiler.key_averages()) / 1e6
    return round(min(1.0, device_s / seconds), 3)


def _peak_mb(step: Callable[[], object], device: str) -> float:
    """Return what a step takes on the device above what was there; 0 on a processor (``training`` measures that)."""
    if not device.startswith("cuda"):
        return 0.0
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    return round((torch.cuda.max_memory_allocated(device) - before) / MB, 1)


def _graph(problem: Problem, patients: list[PatientRows], device: str) -> str:
    """Say whether the gradients can be captured as a CUDA graph, whether they are then the same, and what it saves."""
    if not device.startswith("cuda"):
        return "no GPU"
    stack = rows_together(patients)

    def eager() -> Tensor:
        return book_keeping_gradients(problem, stack)

    try:
        expected = eager()
        graph: Any = torch.cuda.CUDAGraph()
        captured_here: Any = torch.cuda.graph
        with captured_here(graph):
            captured = eager()
        graph.replay()
        _wait(device)
        same = torch.equal(captured, expected)
        share = median(_seconds(graph.replay, device) / _seconds(eager, device) for _ in range(TURNS))
    except RuntimeError as error:
        torch.cuda.synchronize(device)
        return f"does not hold: {str(error).splitlines()[0][:100]}"
    return f"{share:.2f} of the time, {'same bits' if same else 'other bits'}"


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
