"""Whom a study waits for: each hospital that cannot take part now, why, since when, and what a person can do."""

import time
from dataclasses import dataclass
from typing import Final

from common.secagg.check_table import TABLE, Check

_ASK_THERE: Final = "ask there; `fedward-site check` says more"
_ADVICE: Final = {
    Check.R0_PLAN: "it has not approved this plan, has withdrawn, or pauses: telephone",
    Check.R0_EPOCH: "it has another roster: send the kit again",
    Check.R0_ROSTER: "it has another roster: send the kit again",
    Check.R0_CONTRIBUTION: "its own work failed or its privacy budget does not allow more: " + _ASK_THERE,
    Check.R0_ATTEMPT_MAXIMUM: "its count of attempts is used up: a new plan, approved again",
    Check.R0_ATTEMPT: "it knows a later attempt: was this study restored from a backup?",
    Check.R0_RESULT: "it was told another model: was this study restored from a backup?",
    Check.R0_RELEASED: "without noise no second sum over this model: a new plan",
    Check.R0_DEADLINE: "compare both clocks, and its limit on the length of a session",
    Check.ANY_INTERNAL: "its program failed (a full disk, for example): " + _ASK_THERE,
}


@dataclass(frozen=True)
class Missing:
    """A hospital that a study waits for.

    ``why``: ``offline``, ``silent`` (let a timeout pass), ``failed`` (its program gave no answer of ours), or the check
    by which it refuses, with ``code``. ``asked_again_unix_s``: when it is asked next; None: as soon as it is there.
    """

    site: str
    why: str
    since_unix_s: float
    code: int = 0
    asked_again_unix_s: float | None = None

    @property
    def do(self) -> str:
        """What a person can do."""
        if self.why == "offline":
            return "telephone: its agent and its network"
        if self.why in {"silent", "failed"}:
            return _ASK_THERE
        return _ADVICE.get(Check(self.why), _ASK_THERE) if self.why in set(Check) else _ASK_THERE

    @property
    def sentence(self) -> str:
        """Name, reason and what to do, for a person."""
        since = _clock(self.since_unix_s)
        again = "" if self.asked_again_unix_s is None else f"; asked again at {_clock(self.asked_again_unix_s)}"
        return f"{self.site} {self._reason()} since {since}{again}: {self.do}"

    def _reason(self) -> str:
        if self.why == "offline":
            return "is offline"
        if self.why == "silent":
            return "does not answer"
        if self.why == "failed":
            return "answers with a failure"
        return f"refuses with code {self.code} ({self.why}, which stops {TABLE[Check(self.why)].stops})"


def _clock(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))
