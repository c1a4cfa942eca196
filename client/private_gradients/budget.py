"""How long the choice of an engine may take, in seconds of the clock by which engines are compared."""

import time
from dataclasses import dataclass
from typing import Final

import torch

LEAST_S: Final = 20.0
SHARE: Final = 0.02  # of the work that the study plans here


class Budget:
    """``LEAST_S`` or ``SHARE`` of the planned work, whichever is more; one object for all choices of a study.

    ``spent_s``: so far. What is asked for beforehand (``allows``) is an estimate, so the last thing that was allowed
    may end a little late.
    """

    def __init__(self, *, least_s: float = LEAST_S, share: float = SHARE) -> None:
        self._least_s, self._share, self._planned_s = least_s, share, 0.0
        self.spent_s = 0.0

    def plan(self, seconds: float) -> None:
        """Add work that the study will do here, whatever the engine: it may cost ``SHARE`` to choose for it."""
        self._planned_s += seconds

    @property
    def left_s(self) -> float:
        """What is left, at least 0."""
        return max(0.0, max(self._least_s, self._share * self._planned_s) - self.spent_s)

    def allows(self, seconds: float) -> bool:
        """Tell whether so much may be spent next."""
        return seconds <= self.left_s


@dataclass(frozen=True)
class Spending:
    """A budget, and what it is spent for: gradients of so many patients are planned."""

    budget: Budget
    planned_patients: float = 0.0


def seconds_on(device: torch.device) -> float:
    """Return processor time of this thread; on a GPU, or with several threads, the time of the clock on the wall."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)  # its work is asynchronous
        return time.perf_counter()
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()
