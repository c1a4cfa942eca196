"""Who takes part in an attempt: the sites that are online, minus those that rest, within the plan's numbers."""

import hashlib
import math
import secrets
from collections import Counter
from dataclasses import dataclass, field

from common.plan.aggregation import LEAST_GROUPS
from common.plan.plan import StudyPlan
from server.attempts.suspicion import Suspicions

LONGEST_REST = 16


def least_cohort(plan: StudyPlan) -> int:
    """Return the smallest cohort that can finish: max(t, s_min, 3), or three groups of so many."""
    least = plan.secure_aggregation.least_cohort
    return LEAST_GROUPS * least if plan.aggregation.takes_median else least


@dataclass(eq=False)
class Attendance:
    """Which sites rest, and for how many attempts more.

    A site that let a whole timeout pass makes everybody wait, so it rests one attempt, then two, four … up to 16,
    while enough others are there. One that answers, even with a refusal, costs no time and never rests here (garbage is
    the matter of ``server.attempts.suspicion``).
    """

    timeouts: Counter[str] = field(default_factory=Counter)
    resting: Counter[str] = field(default_factory=Counter)

    def note_timeouts(self, silent: set[str], answered: set[str]) -> None:
        """Take note of one attempt."""
        for site in list(self.resting):
            self.resting[site] -= 1
        for site in answered - silent:
            self.timeouts.pop(site, None)
        for site in silent:
            self.timeouts[site] += 1
            self.resting[site] = min(1 << (self.timeouts[site] - 1), LONGEST_REST)

    def rests(self, site: str) -> bool:
        """Tell whether a site rests in the next attempt."""
        return self.resting[site] > 0


def choose_cohort(plan: StudyPlan, online: tuple[str, ...], attendance: Attendance) -> tuple[str, ...] | None:
    """Return the cohort (sorted), None if too few are online.

    At most ``plan.round_size`` sites, drawn at random where more are there; resting sites are called in only where the
    others do not suffice.
    """
    fresh = [site for site in online if not attendance.rests(site)]
    tired = sorted((site for site in online if attendance.rests(site)), key=lambda site: attendance.resting[site])
    fresh += tired[: max(0, least_cohort(plan) - len(fresh))]
    if len(fresh) < least_cohort(plan):
        return None
    size = plan.round_size
    if len(fresh) > size:
        fresh = secrets.SystemRandom().sample(fresh, size)
    return tuple(sorted(fresh))


def part_of(cohort: tuple[str, ...], *, plan: StudyPlan, number: int) -> tuple[str, ...]:
    """Return the ``number``-th part (from 0) of a cohort to try: the fewest sites that can finish.

    For sums that keep failing their check where no few liars explain them (``suspicion``). The rule is public, so that
    anybody can check afterwards that the server did not pick whom it liked: sites are ranked by SHA-256 over plan
    digest and name, and part i holds the sites from rank i on, going round. Among as many parts as there are sites
    each one is left out at least once; later parts are ranked anew. Each is an attempt, charged.
    """
    size, turn = least_cohort(plan), number % len(cohort)
    ranked = publicly_ranked(cohort, plan=plan, turn=number // len(cohort))
    return tuple(sorted((ranked[turn:] + ranked[:turn])[:size]))


def publicly_ranked(cohort: tuple[str, ...], *, plan: StudyPlan, turn: int = 0) -> list[str]:
    """Return the sites by SHA-256 over plan digest, turn and name: an order that the server did not choose."""
    salt = bytes.fromhex(plan.digest()) + turn.to_bytes(8, "big")
    return sorted(cohort, key=lambda site: hashlib.sha256(salt + site.encode()).digest())


def cohort_without_liars(
    whole: tuple[str, ...],
    suspicions: Suspicions,
    *,
    plan: StudyPlan,
    attempt: int,
    part: int,
    turn: int | None = None,
) -> tuple[str, ...]:
    """Return the cohort of an attempt: ``whole``, less whom the search for a liar leaves out.

    ``part``: which part is tried where no few hospitals explain the sums that failed. ``turn``: whose turn it is of two
    that are left out in turn, where a round has several attempts; None: the attempt says.
    """
    ranked, least = publicly_ranked(whole, plan=plan), least_cohort(plan)
    left_out = suspicions.left_out_in(attempt, ranked, least=least, turn=turn)
    if left_out is None:
        return part_of(whole, plan=plan, number=part)
    return tuple(site for site in whole if site not in left_out)


def random_groups(cohort: tuple[str, ...], *, plan: StudyPlan) -> list[tuple[str, ...]]:
    """Return the cohort as disjoint groups, drawn at random, each sorted and able to open a sum of its own.

    As few groups as ``cohort_size`` (the most in one) allows, at least three, of sizes that differ by one at most.
    Where that would leave a group too small, there is one group less, and who is left over is drawn at random too.
    """
    rules, drawn = plan.secure_aggregation, secrets.SystemRandom().sample(cohort, len(cohort))
    count = max(LEAST_GROUPS, math.ceil(len(drawn) / rules.cohort_size))
    if len(drawn) // count < rules.least_cohort:
        count -= 1
        drawn = drawn[: count * rules.cohort_size]
    return [tuple(sorted(drawn[first::count])) for first in range(count)]
