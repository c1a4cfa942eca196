"""Which hospitals could take part in an attempt now, and why each of the others cannot.

One that refused an order is not asked again at once: it would refuse again, and everybody else would train for nothing.
It is asked when something changes (it was away and is back; a person says so), and otherwise on a public schedule:
``first_wait_s`` after its first refusal, then ``GROWTH`` times as long after each, up to ``longest_ask_s``. With the
default that is 1 s, 4 s, 16 s, 1 min, 4 min, 17 min, and then every hour. It is asked before the others
(``server.attempts.exchange``), so that only its answer is waited for. After ``RETURNS_AT_ONCE`` returns without a round
that went through, the schedule alone counts.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from common.secagg.check_table import TABLE, Check
from common.secagg.stages import Kind
from server.attempts.exchange import TAKEN
from server.attempts.retries import RetryRules
from server.study.journal_rows import AnswerRow
from server.study.waiting import Missing

GROWTH: Final = 4.0
RETURNS_AT_ONCE: Final = 20  # until a round goes through: a node that comes and goes must not use up the orders


@dataclass
class _Refusal:
    """``ask_at_s`` is monotonic, ``ask_at_unix_s`` the same for people; ``times``: refusals in a row."""

    check: Check
    since_unix_s: float
    times: int
    ask_at_s: float
    ask_at_unix_s: float


@dataclass(eq=False)
class Presence:
    """What is known of each hospital of the plan, for this run only: a server that starts again asks everybody."""

    sites: tuple[str, ...]
    rules: RetryRules
    _refusing: dict[str, _Refusal] = field(default_factory=dict)
    _unheard: dict[str, tuple[str, float]] = field(default_factory=dict)  # silent or failed, since
    _offline: dict[str, float] = field(default_factory=dict)
    _has_looked: bool = False
    _returns_left: int = RETURNS_AT_ONCE

    def look(self, online: Iterable[str]) -> set[str]:
        """Take note of who is online; return who came back, whom it is worth asking at once."""
        there, now = set(online), time.time()
        back = {site for site in self._offline if site in there}
        self._offline = {site: self._offline.get(site, now) for site in self.sites if site not in there}
        if not self._has_looked or not back or not self._returns_left:
            self._has_looked = True
            return set()
        self._returns_left -= 1
        for site in back:
            self._ask_now(site)
            self._unheard.pop(site, None)
        return back

    def note(self, answers: Sequence[AnswerRow]) -> None:
        """Take note of what became of the questions of an attempt."""
        now = time.time()
        for row in answers:
            if row.outcome == TAKEN:
                self._unheard.pop(row.site, None)
                if row.asked == Kind.CERTIFICATE.value:
                    self._returns_left = RETURNS_AT_ONCE
            elif row.outcome.startswith(("timeout", "slow", "failed", "rejected")):
                why = "failed" if row.outcome.startswith(("failed", "rejected")) else "silent"
                _, since = self._unheard.get(row.site, (why, now))
                self._unheard[row.site] = why, since
            if row.asked == Kind.ORDER.value:
                self._note_order(row)

    def is_due(self, site: str) -> bool:
        """Tell whether a hospital may be asked: it does not refuse, or its time has come."""
        refusal = self._refusing.get(site)
        return refusal is None or time.monotonic() >= refusal.ask_at_s

    def refuses(self, site: str) -> bool:
        """Tell whether a hospital's last word was a refusal."""
        return site in self._refusing

    def ask_everybody(self) -> None:
        """Let everybody be asked at once: a person said that something has changed."""
        for site in self._refusing:
            self._ask_now(site)

    def missing(self) -> tuple[Missing, ...]:
        """Return who is not there, who refuses, and who was not heard in the last attempt, sorted."""
        found = [Missing(site, "offline", since) for site, since in self._offline.items()]
        for site, refusal in self._refusing.items():
            if site not in self._offline:
                check, again = refusal.check, refusal.ask_at_unix_s
                found.append(Missing(site, str(check), refusal.since_unix_s, TABLE[check].code, again))
        known = {each.site for each in found}
        found += [Missing(site, *what) for site, what in self._unheard.items() if site not in known]
        return tuple(sorted(found, key=lambda each: each.site))

    def _note_order(self, row: AnswerRow) -> None:
        if row.outcome == TAKEN:
            self._refusing.pop(row.site, None)
        elif row.outcome.startswith("refused:"):
            before = self._refusing.get(row.site)
            times = before.times + 1 if before else 1
            wait_s = min(self.rules.first_wait_s * GROWTH ** min(times - 1, 32), self.rules.longest_ask_s)
            now = time.time()
            since = before.since_unix_s if before else now
            check = Check(row.outcome.removeprefix("refused:"))
            self._refusing[row.site] = _Refusal(check, since, times, time.monotonic() + wait_s, now + wait_s)

    def _ask_now(self, site: str) -> None:
        if site in self._refusing:
            self._refusing[site].ask_at_s, self._refusing[site].ask_at_unix_s = time.monotonic(), time.time()
