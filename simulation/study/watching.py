"""Watchers of a run: one that does nothing, and one that hands each event to several."""

from collections.abc import Sequence

from server.study.events import AttemptStart, RoundEnd, RoundEvents, RunEnd
from server.study.journal_rows import AbortRow, AnswerRow
from server.study.waiting import Missing


class SilentEvents:
    """Does nothing; for watchers that care about a few events."""

    def on_waiting(self, online: int, needed: int) -> None:
        """Too few sites are online."""

    def on_missing(self, missing: tuple[Missing, ...]) -> None:
        """For whom is waited."""

    def on_attempt(self, start: AttemptStart) -> None:
        """An attempt begins."""

    def on_stage(self, asked: str, sites: tuple[str, ...], timeout_s: float) -> None:
        """A stage opens."""

    def on_answer(self, answer: AnswerRow) -> None:
        """A site answered, or did not."""

    def on_aborted(self, abort: AbortRow, wait_s: float) -> None:
        """An attempt was given up."""

    def on_round(self, end: RoundEnd) -> None:
        """A sum was applied."""

    def on_finished(self, end: RunEnd) -> None:
        """The run is over."""


class AllEvents:
    """Hands each event to several watchers, in order."""

    def __init__(self, watchers: Sequence[RoundEvents]) -> None:
        self._watchers = watchers

    def on_waiting(self, online: int, needed: int) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.on_waiting(online, needed)

    def on_missing(self, missing: tuple[Missing, ...]) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.on_missing(missing)

    def on_attempt(self, start: AttemptStart) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.on_attempt(start)

    def on_stage(self, asked: str, sites: tuple[str, ...], timeout_s: float) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.on_stage(asked, sites, timeout_s)

    def on_answer(self, answer: AnswerRow) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.on_answer(answer)

    def on_aborted(self, abort: AbortRow, wait_s: float) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.on_aborted(abort, wait_s)

    def on_round(self, end: RoundEnd) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.on_round(end)

    def on_finished(self, end: RunEnd) -> None:
        """Pass it on."""
        for watcher in self._watchers:
            watcher.on_finished(end)
