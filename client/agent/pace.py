"""How long to pause between two looks for work: a tenth of the time for which nothing has come.

A round is five or more trips in quick succession, then minutes or days of nothing. Looking after a tenth of the silence
makes an answer late by a tenth of what it took anyway, and costs next to nothing when nothing happens.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

SHARE: Final = 0.1  # of the silence


@dataclass
class Pace:
    """``longest_s``: the pause when nothing has come for long. ``shortest_s``: right after a message.

    ``clock``: seconds, monotonic; tests pass their own.
    """

    longest_s: float
    shortest_s: float = 0.05
    clock: Callable[[], float] = time.monotonic
    _last_work: float = field(default=float("-inf"), init=False)

    def work_came(self) -> None:
        """Note that a message came or left just now."""
        self._last_work = self.clock()

    def pause_s(self) -> float:
        """Return how long to wait before looking again."""
        silence_s = self.clock() - self._last_work
        return min(self.longest_s, max(self.shortest_s, SHARE * silence_s))
