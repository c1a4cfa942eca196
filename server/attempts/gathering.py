"""Waiting: for enough hospitals before an attempt, and between two attempts; each wait says for whom.

A wait ends early when something changes: a hospital comes back, a person says go on, or somebody asks to stop.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from common.plan.plan import StudyPlan
from server.attempts.attempt import Attempt
from server.attempts.channel import Channel
from server.attempts.cohort import Attendance, least_cohort
from server.attempts.presence import Presence
from server.attempts.retries import RunSettings
from server.study.events import RoundEvents
from server.study.waiting import Missing

SHORTEST_SLEEP_S: Final = 0.1
SAY_AGAIN_S: Final = 60.0


@dataclass(eq=False)
class Gathering:
    """Who can take part in the next attempt. ``asked_to_go_on``: true once after a person said so."""

    plan: StudyPlan
    channel: Channel
    events: RoundEvents
    settings: RunSettings
    should_stop: Callable[[], bool]
    asked_to_go_on: Callable[[], bool]
    attendance: Attendance = field(default_factory=Attendance)
    presence: Presence = field(init=False)
    _said: tuple[int, tuple[Missing, ...]] | None = None
    _said_at_s: float = 0.0

    def __post_init__(self) -> None:
        """Begin knowing of nobody."""
        self.presence = Presence(tuple(site.name for site in self.plan.sites), self.settings.retries)

    def gather(self) -> tuple[str, ...]:
        """Return the sites that can be asked: at once if the full cohort can, after ``gather_s`` if enough can."""
        least, began_s, self._said = least_cohort(self.plan), time.monotonic(), None
        while True:
            ready, wanted = self._ready()
            if len(ready) >= wanted or self.should_stop():
                return ready
            patience_s = self.settings.gather_s if len(ready) >= least else self.settings.cohort_wait_s
            if time.monotonic() - began_s >= patience_s:
                return ready
            self._say(len(ready), least)
            self._sleep(min(self.settings.look_every_s, patience_s))

    def pause(self, wait_s: float) -> None:
        """Wait before the next attempt, or until something changes."""
        until_s = time.monotonic() + wait_s
        if wait_s > 0:
            self.events.on_missing(self.presence.missing())
        while (left_s := until_s - time.monotonic()) > 0 and not self.should_stop():
            self._sleep(min(left_s, self.settings.look_every_s))
            if left_s > self.settings.look_every_s and self._something_changed(self.channel.online()):
                return

    def note(self, attempts: Sequence[Attempt]) -> None:
        """Note who of a round refused, was silent, or spoke, and at whose node somebody else may sit."""
        for attempt in attempts:
            self.presence.note(attempt.answers)
        silent = set[str]().union(*(attempt.silent for attempt in attempts))
        self.attendance.note_timeouts(silent, set[str]().union(*(attempt.spoke for attempt in attempts)))
        for site in set[str]().union(*(attempt.doubtful for attempt in attempts)):
            self.channel.doubt(site)

    def _ready(self) -> tuple[tuple[str, ...], int]:
        """Return who can be asked, and how many are worth waiting for: those who refuse are not."""
        online = self.channel.online()
        self._something_changed(online)
        ready = tuple(site for site in online if self.presence.is_due(site))
        away = sum(not self.presence.is_due(site.name) for site in self.plan.sites)
        return ready, max(min(self.plan.round_size, len(self.plan.sites) - away), least_cohort(self.plan))

    def _something_changed(self, online: tuple[str, ...]) -> bool:
        back = self.presence.look(online)
        if self.asked_to_go_on():
            self.presence.ask_everybody()
            self.attendance.resting.clear()
            return True
        return bool(back)

    def _say(self, ready: int, least: int) -> None:
        """Tell the watcher for whom is waited: when that changes, and now and then."""
        said, now_s = (ready, self.presence.missing()), time.monotonic()
        if said == self._said and now_s < self._said_at_s + SAY_AGAIN_S:
            return
        self._said, self._said_at_s = said, now_s
        self.events.on_missing(said[1])
        self.events.on_waiting(ready, least)

    def _sleep(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0 and not self.should_stop():
            time.sleep(min(left_s, SHORTEST_SLEEP_S))
