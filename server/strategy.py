"""Fedward as a strategy of Flower's Message API.

``start`` runs the study's own rounds (``server.rounds``). Flower's own loop works too: ``configure_train`` does the
stages up to the masked vectors, Flower sends and collects those, and ``aggregate_train`` does the rest. The plan
decides what is trained and how; arrays and settings that Flower's loop hands in are not used.
"""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from common.secagg.refusals import RoundAbortedError
from common.secagg.stages import Kind
from server.attempts.attempt import Attempt
from server.attempts.stage import Stage
from server.attempts.study_run import StudyRun
from server.model.blocks import Vector, whole
from server.model.evaluation import Evaluation
from server.model.phase_facts import named_parameters
from server.rounds import run_rounds
from server.study.events import RunEnd, RunState
from server.study.folder import Study
from server.study.history import scores_by_version
from server.study.progress import current_state, resume, stored_state

_log = logging.getLogger("fedward.strategy")


@dataclass(eq=False)
class _Open:
    """An attempt between ``configure_train`` and ``aggregate_train``."""

    attempt: Attempt
    stage: Stage


@dataclass(eq=False)
class FedwardStrategy(Strategy):
    """Secure aggregation of a signed study plan. ``make_run`` builds the parts of a run for the grid it is given.

    Attributes: ended, how the last ``start`` ended.
    """

    make_run: Callable[[Grid], StudyRun]
    ended: RunEnd | None = None
    _run: StudyRun | None = field(default=None, repr=False)
    _open: _Open | None = field(default=None, repr=False)

    def start(  # noqa: PLR0917 (Flower's signature)
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int = 0,
        timeout: float = 0.0,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run every round that is left; the plan, not the arguments, says from where, how many and how long.

        Returns: the model's arrays by parameter name, and the noised scores by version of the model.
        """
        del initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn
        self.run(grid)
        return result_of(self._run_on(grid))

    def run(self, grid: Grid) -> RunEnd:
        """Run every round that is left as ``start`` does, without reading the model back for a result of Flower's."""
        self.ended = run_rounds(self._run_on(grid))
        return self.ended

    def summary(self) -> None:
        """Log what is going to run."""
        if self._run:
            plan = self._run.study.plan
            _log.info("study %s, plan %s…, %d sites", plan.study.name, plan.digest()[:12], len(plan.sites))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Begin an attempt at the next round: ORDER, KEYLIST, and return the FORWARD messages; none where it failed."""
        del server_round, arrays, config
        run, self._open = self._run_on(grid), None
        timing, state = run.study.plan.timing, resume(run.study, run.journal)
        attempt = RunState.FINISHED if state.finished else run.open_attempt(state)
        if isinstance(attempt, RunState):
            self.ended = run.end(attempt)
            return []
        try:
            attempt.ask(Kind.ORDER, attempt.session.start(), timing.training_timeout_s)
            attempt.ask(Kind.KEYLIST, attempt.session.advance(), timing.stage_timeout_s)
            packets = attempt.session.advance()
        except RoundAbortedError as aborted:
            run.give_up(attempt, aborted)
            return []
        vector_bytes = run.study.network.phases[state.phase].vector.payload_bytes
        stage = attempt.stage(Kind.FORWARD, packets, timing.stage_timeout_s, reply_bytes=vector_bytes)
        self._open = _Open(attempt, stage)
        return list(stage.questions.values())

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the masked vectors, open their sum, and move the model; (None, None) where that failed."""
        del server_round
        if self._run is None or self._open is None:
            return None, None
        run, attempt, timing = self._run, self._open.attempt, self._run.study.plan.timing
        for reply in replies:
            self._open.stage.take_reply(reply)
        try:
            attempt.ask(Kind.SURVIVORS, attempt.session.advance(), timing.stage_timeout_s)
            attempt.ask(Kind.CERTIFICATE, attempt.session.advance(), timing.stage_timeout_s)
            opened = attempt.session.finish()
        except RoundAbortedError as aborted:
            run.give_up(attempt, aborted)
            return None, None
        after = run.apply(attempt, opened, stored_state(run.study, run.journal))
        if after is None:
            return None, None
        run.announce(attempt)
        run.close_attempt(attempt, opened)
        arrays = named_arrays(run.study, whole(after.parameters))
        return arrays, MetricRecord({"participants": len(opened.participants)})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return nothing: a model's score rides in the masked vector of the round after it."""
        del server_round, arrays, config, grid
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the score that the last opened sum brought, None where its version was not due."""
        del server_round, replies
        scores = scores_by_version(self._run.study, self._run.journal) if self._run and self._open else {}
        return metrics(list(scores.values())[-1]) if scores else None

    def _run_on(self, grid: Grid) -> StudyRun:
        if self._run is None or self._run.channel.grid is not grid:
            self._run = self.make_run(grid)
            self.summary()
        return self._run


def result_of(run: StudyRun) -> Result:
    """Return what Flower shows at the end: the model by parameter name, the scores by version."""
    result = Result()
    result.arrays = named_arrays(run.study, current_state(run.study, run.journal).parameters)
    scores = scores_by_version(run.study, run.journal)
    result.evaluate_metrics_clientapp = {version: metrics(score) for version, score in scores.items()}
    return result


def named_arrays(study: Study, parameters: Vector) -> ArrayRecord:
    """Return all weights under their parameters' names."""
    return ArrayRecord({name: Array(weights) for name, weights in named_parameters(study.network, parameters).items()})


def metrics(score: Evaluation) -> MetricRecord:
    """Return the figures of a score that are numbers."""
    low, high = score.interval
    figures = {"score": score.score, "low": low, "high": high, "calibration_error": score.calibration_error}
    return MetricRecord({name: value for name, value in figures.items() if math.isfinite(value)})
