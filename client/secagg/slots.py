"""Reply slots: what a site answers to an ORDER leaves at public times, whatever training took.

    order comes            1st slot ends             2nd slot ends            deadline
    |-- training ----------|-------------------------|-----------------------|--
                           ^ an answer leaves at one of these times only     ^ nothing after it

Training time follows the private sample. The coordinator chooses the deadline, so a deadline that was held against the
training itself would measure it as finely as it likes; held against the end of the slot, it tells no more than the
answer's own time does. A slot is as long as the largest sample needs (``common.plan.reply_slot``), so it tells nothing.
"""

import math
from dataclasses import dataclass
from typing import Final

WRAP_UP_S: Final = 2.0  # for the noise and an end of the process that trains, at most a quarter of a slot


@dataclass(frozen=True)
class ReplySlots:
    """Slots of one order: when it came, how long a slot is (0: none), and when nobody waits any more. Unix seconds."""

    came_s: float
    slot_s: float
    deadline_s: float

    @property
    def has_one(self) -> bool:
        """Whether at least one slot ends before the deadline: without one nothing can be answered in time."""
        return self.came_s + self.slot_s < self.deadline_s

    @property
    def train_until_s(self) -> float:
        """When training must end so that its answer leaves in the last slot: public, a multiple of slots less a margin.

        Requires ``has_one``. Without slots: the deadline.
        """
        if self.slot_s <= 0:
            return self.deadline_s
        whole = math.ceil((self.deadline_s - self.came_s) / self.slot_s) - 1  # the last one ends before the deadline
        return self.came_s + whole * self.slot_s - min(WRAP_UP_S, self.slot_s / 4)

    def leaves_at_s(self, now_s: float) -> float:
        """Return the end of the slot in which ``now_s`` lies: when an answer that is ready now leaves."""
        if self.slot_s <= 0:
            return now_s
        return self.came_s + math.ceil((now_s - self.came_s) / self.slot_s) * self.slot_s
