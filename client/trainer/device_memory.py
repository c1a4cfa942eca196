"""The device that trains: whether it computes, how much of its memory is free, and how much a piece of work takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from client.errors import TrainerFailedError
from common.processes.freed_memory import LARGE_BYTES, give_back
from common.processes.machine_memory import free_bytes

STATUS: Final = Path("/proc/self/status")
CLEAR: Final = Path("/proc/self/clear_refs")
FROM_NOW: Final = "5"  # resets the largest resident size, proc(5)


def require_device(device: str) -> None:
    """Refuse a device that does not compute, before anything is asked of it. Raises: TrainerFailedError."""
    try:
        torch.ones(1, device=device).sum().item()
    except (RuntimeError, AssertionError):  # PyTorch without CUDA asserts
        raise TrainerFailedError(
            f'{device} cannot compute: the GPU or its driver is gone; mend it, or set device = "cpu" in site.toml'
        ) from None


def free_on(device: str) -> int | None:
    """Return the free bytes of the processor's memory or of the GPU's; None where nobody says."""
    if not device.startswith("cuda"):
        return free_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    return int(free)


def peak_of(work: Callable[[], object], device: str) -> int | None:
    """Return the bytes that ``work`` takes at most above what was there before; None where nobody says.

    The second call counts: the first one also prepares what stays.
    """
    work()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return int(torch.cuda.max_memory_allocated(device)) - before
    try:
        give_back(LARGE_BYTES)
        CLEAR.write_text(FROM_NOW, encoding="ascii")
        before = _status_bytes("VmRSS")
        work()
        return max(0, _status_bytes("VmHWM") - before)
    except (OSError, StopIteration, ValueError):
        return None


def _status_bytes(name: str) -> int:
    lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024
