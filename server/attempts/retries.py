"""When an attempt fails: how long to wait, when to try a part of the cohort, when to stop.

Most aborts are a network that is away for a moment: wait, doubling, and try again with a fresh attempt. A sum that
fails its check means that a site sent garbage, and the protocol cannot say which: after two such sums parts of the
cohort are tried (``suspicion``), each an attempt of its own and charged as one, and in the end the run stops with a
clear state. The same holds for secrets that no subset of shares rebuilds: their dealer lied, or a site that opened
its share.
Source: secure-aggregation.md section 6.0, 2 and 11.
"""

import math
from dataclasses import dataclass, field
from typing import Final

from common.secagg.refusals import Check
from server.study.events import RunState

UNSOUND_BEFORE_PARTS = 2
SUMMED: Final = frozenset({Check.C_SUM, Check.C_NORM})  # whoever is in the sum may have lied
UNSOUND: Final = SUMMED | {Check.C_SEED, Check.C_MASK_KEY}


@dataclass(frozen=True, slots=True)
class RetryRules:
    """``first_wait_s`` doubles with each failure in a row up to ``longest_wait_s``; ``most_in_row`` failures end it.

    ``is_patient``: attempts that ended before anything was masked cost nothing and do not end it, and the wait after
    them grows on to ``longest_unmasked_wait_s``. ``longest_ask_s``: the longest time until a hospital that refuses is
    asked again (``server.attempts.presence``).
    ``parts_per_site``: how many parts of a cohort are tried for each of its sites before unsound sums end the run.
    """

    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    most_in_row: int = 10
    parts_per_site: int = 2
    is_patient: bool = False
    longest_unmasked_wait_s: float = 900.0
    longest_ask_s: float = 3600.0


@dataclass(frozen=True)
class RunSettings:
    """How patient a run is.

    ``cohort_wait_s``: how long to wait for enough sites before the run ends. ``gather_s``: how long to wait for the
    plan's full cohort before going on with fewer. ``result_timeout_s``: how long RESULT may take; nothing depends on
    its answer. ``threads``: for removing masks. ``head_start_s``: how long those who refused before are asked before
    everybody else is. ``look_every_s``: how often a wait looks whether something changed.
    ``least_patience_s``: how long the slowest are waited for at least, whatever the plan's ``slow_multiple``.
    """

    cohort_wait_s: float = 3600.0
    gather_s: float = 10.0
    result_timeout_s: float = 10.0
    threads: int = 1
    head_start_s: float = 10.0
    look_every_s: float = 1.0
    least_patience_s: float = 30.0
    retries: RetryRules = field(default_factory=RetryRules)


# a deployed study ends when it is finished or a person ends it, and otherwise waits
WAITS_FOR_EVER: Final = RunSettings(cohort_wait_s=math.inf, retries=RetryRules(is_patient=True))


@dataclass(slots=True)
class Failures:
    """Failures since the last round that was applied: all, those before anything was masked, those of unsound sums."""

    in_row: int = 0
    unsound: int = 0
    unmasked: int = 0

    def note(self, check: Check, *, masked: bool = True) -> None:
        """Count one aborted attempt. ``masked``: whether a masked vector may have left a hospital."""
        self.in_row += 1
        self.unmasked += not masked
        self.unsound += check in UNSOUND

    def clear(self) -> None:
        """Forget them: a round was applied."""
        self.in_row = self.unsound = self.unmasked = 0

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
        longest_s = rules.longest_unmasked_wait_s if rules.is_patient and self.unmasked else rules.longest_wait_s
        return min(rules.first_wait_s * 2.0 ** min(max(self.in_row - 1, 0), 64), longest_s)

    def verdict(self, rules: RetryRules, *, cohort_size: int, part_size: int) -> RunState | None:
        """Return how the run ends now, None to go on. Unsound sums have attempts of their own, beside ``most_in_row``.

        With ``part_size`` equal to the cohort there is no part to try, so a third unsound sum is the last.
        """
        parts = rules.parts_per_site * cohort_size if part_size < cohort_size else 1
        if self.unsound >= UNSOUND_BEFORE_PARTS + parts:
            return RunState.UNSOUND_SUMS
        failures = self.in_row - self.unsound - (self.unmasked if rules.is_patient else 0)
        return RunState.KEEPS_FAILING if failures >= rules.most_in_row else None
