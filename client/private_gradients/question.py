"""Everything that a choice of engine hangs on, in words: two runs with the same words may share a verdict."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import torch

from client.private_gradients.problem import Problem
from client.private_gradients.settings import SpeedSettings
from client.private_gradients.stacks import PatientStack
from client.private_gradients.verdict import Question
from common.trust.provenance import code_digest


def question_of(
    problem: Problem, example: PatientStack, most: int, settings: SpeedSettings, *, one_size: bool = False
) -> Question:
    """Return the question: ``example``: patients of the shape in question; ``most``: how many may go side by side.

    ``one_size``: all parts must have one.
    """
    criterion = problem.criterion if hasattr(problem.criterion, "__qualname__") else type(problem.criterion)
    structure = f"{_name(type(problem.network))}\n{problem.network}"
    shapes = [f"{tensor.dtype} {tuple(tensor.shape[1:])}" for tensor in (example.inputs, *example.targets)]
    return (
        ("network", hashlib.sha256(structure.encode()).hexdigest()),
        ("trained", problem.order.digest),
        ("loss", _name(criterion)),
        ("shapes", "; ".join(shapes)),
        ("patients", str(most)),
        (
            "settings",
            f"{settings.engine} autocast={settings.autocast} compile={settings.compile}" + " one size" * one_size,
        ),
        ("device", _machine(str(problem.device))),
        ("threads", str(torch.get_num_threads())),
        ("torch", torch.__version__),
        ("fedward", _own_code()),
    )


@cache
def _machine(device: str) -> str:
    """Return the device with the name of its chip: another one has other kernels."""
    if device.startswith("cuda"):
        return f"{device} {torch.cuda.get_device_name(device)}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        chip = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        chip = ""
    return f"{device} {chip} {torch.backends.cpu.get_cpu_capability()}".strip()


@cache
def _own_code() -> str:
    """Return a digest of this room's sources: finer than a version, which stays while code is worked on."""
    return code_digest(Path(__file__).parent)


def _name(thing: Any) -> str:
    """Return where a class or function is written: two of the same local name must not share a choice."""
    return f"{thing.__module__}.{thing.__qualname__}"
