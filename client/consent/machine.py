"""Whether this machine can train what a plan asks for: the plan's need against the memory that there is."""

from collections.abc import Callable
from typing import Final

from client.installation.config import read_site_config
from client.installation.folder import SiteFolder
from common.networks.errors import NetworkUnsuitableError
from common.plan.machines import Need, need_of
from common.plan.plan import StudyPlan
from common.processes.machine_memory import memory_bytes

AGENT_BYTES: Final = 4e8  # agent, SuperNode and status page beside the process that trains

GpuBytes = Callable[[str], float | None]


def training_device(folder: SiteFolder) -> str:
    """Return where this site trains; "cpu" for a folder without settings, as tests and simulations have it."""
    return read_site_config(folder.config).speed.device if folder.config.exists() else "cpu"


def gpu_bytes(device: str) -> float | None:
    """Return the memory of a GPU, all of it; None where PyTorch finds no such GPU (`fedward-site check` says so)."""
    import torch  # noqa: PLC0415 (seconds, and for sites with a GPU only)

    number = torch.device(device).index or 0
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        return None
    return float(torch.cuda.get_device_properties(number).total_memory)


def memory_for_training(device: str, gpu: GpuBytes = gpu_bytes) -> float | None:
    """Return the bytes that training may take on ``device``; None where nobody says. ``gpu``: who knows of a GPU's."""
    if device != "cpu":
        return gpu(device)
    whole = memory_bytes()
    return None if whole is None else whole - AGENT_BYTES


def require_memory(plan: StudyPlan, *, device: str, gpu: GpuBytes = gpu_bytes) -> None:
    """Refuse a plan of which not even one patient at a time fits into the memory that trains it.

    Raises: NetworkUnsuitableError with what is needed and what there is.
    """
    there = memory_for_training(device, gpu)
    if there is None:
        return
    need = need_of(plan)
    if need.at_once(there) < 1:
        words = too_small(plan, need, there, device)
        raise NetworkUnsuitableError(f"{words}; train it on a larger machine, or decline")


def too_small(plan: StudyPlan, need: Need, there: float, device: str) -> str:
    """Return the sentence with the numbers."""
    size = " x ".join(map(str, plan.image.size_px))
    who = "this machine" if device == "cpu" else f"the GPU {device}"
    return (
        f"{plan.network.name} of width {plan.network.width} at {size} pixels takes about "
        f"{need.least_bytes / 1e6:.0f} MB for one patient at a time, {who} has {there / 1e6:.0f} MB for training"
    )
