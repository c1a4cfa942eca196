"""How many attempts a plan allows: what may have released something is charged, an order alone is only bounded.

An attempt is *charged* from the moment a masked vector may leave a hospital. One that ends before released nothing; its
hospitals take their reservations back (``client.ledger``), and it costs none of the plan's ``maximum_attempts``.
Orders as such are bounded by ``most_orders``, generously: each makes hospitals train.

Spare attempts are pooled. Each phase brings ``maximum_attempts`` slots; an attempt may take an unused slot of another
phase that costs every patient at least as much (``lenders``). The promise stays as it was: the slot's mechanism
dominates what is done in it, and dominating pairs compose whichever slot is used when, also by somebody who chooses
after each output. Sources: Zhu, Dong & Wang 2022 (dominating pairs); Vadhan & Zhang 2023 (concurrent composition).
The ledger of each hospital refuses beyond the promise in any case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from common.plan.phases import Phase
from common.plan.plan import StudyPlan
from common.plan.schedule import last_round, learning_attempts

ORDERS_FOR_AN_ATTEMPT: Final = 20
MORE_ORDERS: Final = 1000


@dataclass(frozen=True, slots=True)
class Slots:
    """The attempts that a phase brings. ``own``: for itself; ``lent``: how many of them other phases may take.

    ``lenders``: the phases whose unused slots an attempt of this one may take, besides its own.
    """

    own: int
    lent: int = 0
    lenders: frozenset[int] = frozenset()


def slots_of(plan: StudyPlan) -> tuple[Slots, ...]:
    """Return the slots of each phase, in order."""
    return tuple(
        Slots(phase.maximum_attempts, learning_attempts(plan, index), _lenders(plan, index))
        for index, phase in enumerate(plan.phases)
    )


def most_orders(plan: StudyPlan) -> int:
    """Return how often a hospital may be ordered in the whole study, charged or not."""
    return ORDERS_FOR_AN_ATTEMPT * sum(phase.maximum_attempts for phase in plan.phases) + MORE_ORDERS


def fit(charged: Sequence[int], slots: Sequence[Slots]) -> bool:
    """Tell whether so many charged attempts of each phase find a slot each (Hall's condition over the phases)."""
    phases = [index for index, count in enumerate(charged) if count]
    for size in range(1, len(phases) + 1):
        for chosen in combinations(phases, size):
            lenders = frozenset().union(*(slots[index].lenders for index in chosen)).difference(chosen)
            room = sum(slots[index].own for index in chosen) + sum(slots[index].lent for index in lenders)
            if sum(charged[index] for index in chosen) > room:
                return False
    return True


def may_order(plan: StudyPlan, charged: Sequence[int], phase: int) -> bool:
    """Tell whether one attempt more at ``phase`` can be charged and later phases keep one for each of their rounds."""
    wanted = [count if index <= phase else max(count, last_round(plan, index)) for index, count in enumerate(charged)]
    wanted[phase] += 1
    return fit(wanted, slots_of(plan))


def _lenders(plan: StudyPlan, index: int) -> frozenset[int]:
    asks = plan.phases[index]
    return frozenset(
        other for other, phase in enumerate(plan.phases) if other != index and _costs_at_least(phase, asks)
    )


def _costs_at_least(one: Phase, other: Phase) -> bool:
    """Tell whether an attempt of ``one`` costs a patient of either stratum as much as one of ``other``, or more.

    A smaller sampling rate, more noise relative to the clip and fewer steps each make a mechanism that is dominated.
    """
    if one.local_steps < other.local_steps:
        return False
    if one.noise_multiplier == 0 or other.noise_multiplier == 0:
        return False
    labelled = one.labelled_sampling_rate >= other.labelled_sampling_rate
    unlabelled = one.unlabelled_sampling_rate >= other.unlabelled_sampling_rate
    noise_labelled = other.labelled_sampling_rate == 0 or other.noise_multiplier >= one.noise_multiplier
    noise_unlabelled = other.unlabelled_sampling_rate == 0 or (
        other.noise_multiplier / other.unlabelled_clip_ratio >= one.noise_multiplier / one.unlabelled_clip_ratio
    )
    return labelled and unlabelled and noise_labelled and noise_unlabelled
