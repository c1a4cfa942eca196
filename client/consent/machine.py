"""Whether this machine can train what a plan asks for: the plan's need against the memory that there is."""

from common.networks.errors import NetworkUnsuitableError
from common.plan.machines import Need, need_of
from common.plan.plan import StudyPlan
from common.processes.machine_memory import memory_bytes

AGENT_BYTES = 4e8  # agent, SuperNode and status page beside the process that trains


def memory_for_training() -> float | None:
    """Return the bytes that training may take on this machine; None where the system does not say."""
    whole = memory_bytes()
    return None if whole is None else whole - AGENT_BYTES


def require_memory(plan: StudyPlan, *, device: str) -> None:
    """Refuse a plan of which not even one patient at a time fits; a GPU's memory is asked by `fedward-site check`.

    Raises: NetworkUnsuitableError with what is needed and what there is.
    """
    there = memory_for_training()
    if device != "cpu" or there is None:
        return
    need = need_of(plan)
    if need.at_once(there) < 1:
        raise NetworkUnsuitableError(f"{too_small(plan, need, there)}; train it on a larger machine, or decline")


def too_small(plan: StudyPlan, need: Need, there: float) -> str:
    """Return the sentence with the numbers."""
    size = " x ".join(map(str, plan.image.size_px))
    return (
        f"{plan.network.name} of width {plan.network.width} at {size} pixels takes about "
        f"{need.least_bytes / 1e6:.0f} MB for one patient at a time, this machine has {there / 1e6:.0f} MB for training"
    )
