"""Who takes part in an attempt: the sites that are online, minus those that rest, within the plan's numbers."""

import hashlib
import secrets
from collections import Counter
from dataclasses import dataclass, field

from common.plan.plan import StudyPlan

LONGEST_REST = 16


def least_cohort(plan: StudyPlan) -> int:
    """Return the smallest cohort that can finish: max(t, s_min, 3)."""
    rules = plan.secure_aggregation
    return max(rules.threshold, rules.minimum_survivors, 3)


@dataclass(eq=False)
class Attendance:
    """Which sites rest, and for how many attempts more.

    A site that let a whole timeout pass makes everybody wait, so it rests one attempt, then two, four … up to 16,
    while enough others are there. One that answers, even with a refusal, costs no time and never rests. Sites outside
    a part of the cohort whose sum was sound, after the whole one's was not, rest for good (until a restart).
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

    def exclude(self, sites: set[str]) -> None:
        """Let sites rest until the server starts again."""
        for site in sites:
            self.resting[site] = 1 << 30

    def rests(self, site: str) -> bool:
        """Tell whether a site rests in the next attempt."""
        return self.resting[site] > 0


def choose_cohort(plan: StudyPlan, online: tuple[str, ...], attendance: Attendance) -> tuple[str, ...] | None:
    """Return the cohort (sorted), None if too few are online.

    At most ``cohort_size`` sites, drawn at random where more are there; resting sites are called in only where the
    others do not suffice.
    """
    fresh = [site for site in online if not attendance.rests(site)]
    tired = sorted((site for site in online if attendance.rests(site)), key=lambda site: attendance.resting[site])
    fresh += tired[: max(0, least_cohort(plan) - len(fresh))]
    if len(fresh) < least_cohort(plan):
        return None
    size = plan.secure_aggregation.cohort_size
    if len(fresh) > size:
        fresh = secrets.SystemRandom().sample(fresh, size)
    return tuple(sorted(fresh))


def part_of(cohort: tuple[str, ...], *, plan: StudyPlan, number: int) -> tuple[str, ...]:
    """Return the ``number``-th part (from 0) of a cohort to try: the fewest sites that can finish.

    After sums that failed their check a part tells on which side the garbage is: nobody can name its sender. The rule
    is public, so that anybody can check afterwards that the server did not pick whom it liked: sites are ranked by
    SHA-256 over plan digest and name, and part i holds the sites from rank i on, going round. Among as many parts as
    there are sites each one is left out at least once; later parts are ranked anew. Each is an attempt, charged.
    """
    size, turn = least_cohort(plan), number % len(cohort)
    salt = bytes.fromhex(plan.digest()) + (number // len(cohort)).to_bytes(8, "big")
    ranked = sorted(cohort, key=lambda site: hashlib.sha256(salt + site.encode()).digest())
    return tuple(sorted((ranked[turn:] + ranked[:turn])[:size]))
