"""The server's learning rate in each round of a phase: a public function of the plan.

    round t = 1 .. W (warm-up)      t / (W + 1)                                 times the phase's learning rate
    t = W + 1 .. R, constant        1
                    cosine          (1 + cos(pi (t - W - 1) / (R - W))) / 2     from 1 down to nearly 0

W = ``warm_up_rounds``, R = ``rounds``. Sources: Goyal et al. 2017 (warm-up), Loshchilov & Hutter 2017 (cosine).
"""

import math
from typing import Final

from common.plan.phases import Phase, Schedule

DIGITS: Final = 9  # the C library's cosine may differ in the last bit from machine to machine; rounded it does not


def share_of_learning_rate(phase: Phase, round_number: int) -> float:
    """Return what the learning rate of round ``round_number`` (from 1) is multiplied by, above 0 and at most 1."""
    warm_up = phase.warm_up_rounds
    if round_number <= warm_up:
        return round_number / (warm_up + 1)
    if phase.schedule is Schedule.CONSTANT:
        return 1.0
    behind, length = min(round_number, phase.rounds) - warm_up - 1, phase.rounds - warm_up
    return round((1 + math.cos(math.pi * behind / length)) / 2, DIGITS)
