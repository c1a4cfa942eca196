"""When an attempt fails: how long to wait, when to try a part of the cohort, when to stop.

Most aborts are a network that is away for a moment: wait, doubling, and try again with a fresh attempt. A sum that
fails its check means that a site sent garbage, and the protocol cannot say which: after two such sums parts of the
cohort are tried (``suspicion``), each an attempt of its own and charged as one, and in the end the run stops with a
clear state. The same holds for secrets that no subset of shares rebuilds: their dealer lied, or a site that opened
its share.
Source: secure-aggregation.md section 6.0, 2 and 11.
"""

from dataclasses import dataclass
from typing import Final

from common.secagg.refusals import Check
from server.study.events import RunState

UNSOUND_BEFORE_PARTS = 2
SUMMED: Final = frozenset({Check.C_SUM, Check.C_NORM})  # whoever is in the sum may have lied
UNSOUND: Final = SUMMED | {Check.C_SEED, Check.C_MASK_KEY}


@dataclass(frozen=True, slots=True)
class RetryRules:
    """``first_wait_s`` doubles with each failure in a row up to ``longest_wait_s``; ``most_in_row`` failures end it.

    ``parts_per_site``: how many parts of a cohort are tried for each of its sites before unsound sums end the run.
    """

    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    most_in_row: int = 10
    parts_per_site: int = 2


@dataclass(slots=True)
class Failures:
    """Failures since the last round that was applied: all of them, and those of a sum that could not be trusted."""

    in_row: int = 0
    unsound: int = 0

    def note(self, check: Check) -> None:
        """Count one aborted attempt."""
        self.in_row += 1
        self.unsound += check in UNSOUND

    def clear(self) -> None:
        """Forget them: a round was applied."""
        self.in_row = self.unsound = 0

    @property
    def tries_parts(self) -> bool:
        """Whether the next attempt goes to a part of the cohort only."""
        return self.unsound >= UNSOUND_BEFORE_PARTS

    @property
    def part(self) -> int:
        """How many parts were tried already."""
        return max(0, self.unsound - UNSOUND_BEFORE_PARTS)

    def wait_s(self, rules: RetryRules) -> float:
        """Return how long to wait before the next attempt."""
        return min(rules.first_wait_s * 2.0 ** max(self.in_row - 1, 0), rules.longest_wait_s)

    def verdict(self, rules: RetryRules, *, cohort_size: int, part_size: int) -> RunState | None:
        """Return how the run ends now, None to go on. Unsound sums have attempts of their own, beside ``most_in_row``.

        With ``part_size`` equal to the cohort there is no part to try, so a third unsound sum is the last.
        """
        parts = rules.parts_per_site * cohort_size if part_size < cohort_size else 1
        if self.unsound >= UNSOUND_BEFORE_PARTS + parts:
            return RunState.UNSOUND_SUMS
        return RunState.KEEPS_FAILING if self.in_row - self.unsound >= rules.most_in_row else None
