"""What a run tells whoever watches: a live display, a status page, a log, a test. Watching never changes a run."""

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from server.model.evaluation import Evaluation
from server.study.journal_rows import AbortRow, AnswerRow
from server.study.waiting import Missing

_log = logging.getLogger("fedward.rounds")


class RunState(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    NOT_SCORED = "not_scored"
    STOPPED = "stopped"
    NO_COHORT = "no_cohort"
    NO_ATTEMPT_LEFT = "no_attempt_left"
    NO_ORDER_LEFT = "no_order_left"
    KEEPS_FAILING = "keeps_failing"
    UNSOUND_SUMS = "unsound_sums"


SENTENCES: dict[RunState, str] = {
    RunState.FINISHED: "every round was applied",
    RunState.NOT_SCORED: "every round was applied; no attempt is left to score the final model",
    RunState.STOPPED: "stopped when asked to; start again to go on",
    RunState.NO_COHORT: "too few sites came; start again when they are back",
    RunState.NO_ATTEMPT_LEFT: "the plan's attempts are used up, and the noise was computed for so many: a new plan is"
    " needed to go on",
    RunState.NO_ORDER_LEFT: "so many orders came to nothing that hospitals take no more: a new plan is needed to go on",
    RunState.KEEPS_FAILING: "attempt after attempt was given up; `status` shows why",
    RunState.UNSOUND_SUMS: "sums keep failing their check: a site sends garbage, and nobody can say which; ask each"
    " site for its version and logs",
}
ENDED_EARLY = "scores no longer rose, so the plan's rule left out the rounds that were left"


@dataclass(frozen=True)
class AttemptStart:
    """An attempt that begins. ``is_closing``: it only scores the final model."""

    attempt: int
    phase: int
    phase_name: str
    round_number: int
    rounds: int
    is_closing: bool
    cohort: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RoundEnd:
    """An attempt whose sum was applied. ``evaluation``: of the model that the round *started* from."""

    start: AttemptStart
    participants: tuple[str, ...]
    dropped: tuple[str, ...]
    evaluation: Evaluation | None
    seconds: float


@dataclass(frozen=True)
class RunEnd:
    """The end of a run, with a sentence for a person. ``rounds_applied``: over all phases, ever."""

    state: RunState
    sentence: str
    rounds_applied: int


class RoundEvents(Protocol):
    """What a watcher implements. Called from the thread of the run: be quick, and do not raise."""

    def on_waiting(self, online: int, needed: int) -> None:
        """Too few sites are online to start a round."""

    def on_missing(self, missing: tuple[Missing, ...]) -> None:
        """For whom is waited, and why: comes before ``on_waiting`` and after ``on_aborted``."""

    def on_attempt(self, start: AttemptStart) -> None:
        """An attempt begins; its number is durable."""

    def on_stage(self, asked: str, sites: tuple[str, ...], timeout_s: float) -> None:
        """A stage opens: ``asked`` (the kind of message) goes to ``sites``."""

    def on_answer(self, answer: AnswerRow) -> None:
        """One site's answer to a stage, or why there is none."""

    def on_aborted(self, abort: AbortRow, wait_s: float) -> None:
        """The attempt was given up; the next one starts after ``wait_s``."""

    def on_round(self, end: RoundEnd) -> None:
        """The sum was applied; journal and checkpoint are durable."""

    def on_finished(self, end: RunEnd) -> None:
        """The run is over."""


class LoggedEvents:
    """Writes each event as one log line: counts, codes and names of sites, never more. Base for those who need few."""

    def on_waiting(self, online: int, needed: int) -> None:
        """Log it."""
        _log.info("%d sites are online, %d are needed", online, needed)

    def on_missing(self, missing: tuple[Missing, ...]) -> None:
        """Log each."""
        for each in missing:
            _log.warning("%s", each.sentence)

    def on_attempt(self, start: AttemptStart) -> None:
        """Log it."""
        _log.info(
            "attempt %d: phase %s, round %d of %d, %d sites",
            start.attempt, start.phase_name, start.round_number, start.rounds, len(start.cohort),
        )  # fmt: skip

    def on_stage(self, asked: str, sites: tuple[str, ...], timeout_s: float) -> None:
        """Log it."""
        _log.debug("%s to %d sites, %.0f s", asked, len(sites), timeout_s)

    def on_answer(self, answer: AnswerRow) -> None:
        """Log what is not as it should be."""
        if answer.outcome != "taken":
            _log.warning("attempt %d: %s to %s: %s", answer.attempt, answer.asked, answer.site, answer.outcome)

    def on_aborted(self, abort: AbortRow, wait_s: float) -> None:
        """Log it."""
        _log.warning("attempt %d aborted (code %d), next in %.1f s", abort.attempt, abort.code, wait_s)

    def on_round(self, end: RoundEnd) -> None:
        """Log it."""
        score = "" if end.evaluation is None else f", score of the model before it {end.evaluation.score:.3f}"
        _log.info("attempt %d applied: %d sites%s", end.start.attempt, len(end.participants), score)

    def on_finished(self, end: RunEnd) -> None:
        """Log it."""
        _log.info("%s: %s", end.state, end.sentence)
