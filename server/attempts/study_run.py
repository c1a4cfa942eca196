"""What the rounds of one study need beside the page itself: who takes part, opening and closing an attempt, giving up.

Settings here change only speed and patience, never the model or the guarantee.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.plan.attempts import may_order, most_orders
from common.plan.errors import PlanInvalidError
from common.plan.schedule import is_closing, last_round, total_rounds
from common.processes.freed_memory import give_back
from common.secagg.refusals import TABLE, Check, RoundAbortedError
from common.secagg.stages import Kind
from server.attempts.attempt import Attempt, Patience
from server.attempts.channel import Channel
from server.attempts.cohort import (
    choose_cohort,
    cohort_without_liars,
    least_cohort,
    publicly_ranked,
    random_groups,
)
from server.attempts.gathering import Gathering
from server.attempts.orders import new_order
from server.attempts.retries import SUMMED, UNSOUND, Failures, RunSettings
from server.attempts.suspicion import Suspicions
from server.attempts.telling import tell_people
from server.model.blocks import Vector, Weights
from server.model.state import StateOf, evaluation_of
from server.model.sums import write_sum
from server.secagg.opening import OpenedSum
from server.secagg.session import ServerSession
from server.study.charged import charged_by_phase, orders
from server.study.events import (
    ENDED_EARLY,
    SENTENCES,
    AttemptStart,
    LoggedEvents,
    RoundEnd,
    RoundEvents,
    RunEnd,
    RunState,
)
from server.study.folder import Study
from server.study.journal import Journal
from server.study.journal_rows import AbortRow
from server.study.progress import announced_results, apply_opened
from server.study.score_limit import asked_attempts, scored_attempts


def never() -> bool:
    """Do not stop."""
    return False


@dataclass(eq=False)
class StudyRun:
    """The parts of a run. ``should_stop`` is asked between attempts and while waiting, ``asked_to_go_on`` then too."""

    study: Study
    order_key: Ed25519PrivateKey
    journal: Journal
    channel: Channel
    events: RoundEvents = field(default_factory=LoggedEvents)
    settings: RunSettings = field(default_factory=RunSettings)
    should_stop: Callable[[], bool] = never
    asked_to_go_on: Callable[[], bool] = never
    failures: Failures = field(default_factory=Failures)
    gathering: Gathering = field(init=False)
    suspicions: Suspicions = field(init=False)
    announced: dict[int, bytes] = field(init=False)

    def __post_init__(self) -> None:
        """Take up what was proven of a site, and what was announced, before a restart."""
        signals = self.should_stop, self.asked_to_go_on
        self.gathering = Gathering(self.study.plan, self.channel, self.events, self.settings, *signals)
        self.suspicions = Suspicions(most_liars=self.study.plan.secure_aggregation.assumed_colluders)
        self.suspicions.remember(self.journal.unsound(), self.journal.suspicions())
        self.announced = announced_results(self.journal)

    def open_attempt(self, state: StateOf[Weights]) -> Attempt | RunState:
        """Choose the cohort, make the next attempt's number durable, and prepare its order; or say why the run ends.

        Raises: PlanInvalidError for a plan that draws groups (``open_groups``).
        """
        if self.study.plan.aggregation.takes_median:
            raise PlanInvalidError("aggregation.robust = median_of_groups: a round has several attempts; call `start`")
        opened = self.open_groups(state)
        return opened if isinstance(opened, RunState) else opened[0]

    def open_groups(self, state: StateOf[Weights]) -> list[Attempt] | RunState:
        """Prepare the attempts of a round, one for each group (the whole cohort where the plan draws none)."""
        plan = self.study.plan
        whole = choose_cohort(plan, self.gathering.gather(), self.gathering.attendance)
        ended = self._reason_to_end(state, whole)
        if ended or whole is None:
            return ended or RunState.NO_COHORT
        number, part = self.journal.last_attempt() + 1, self.failures.part
        turn = orders(plan, self.journal) if plan.aggregation.takes_median else None
        cohort = cohort_without_liars(whole, self.suspicions, plan=plan, attempt=number, part=part, turn=turn)
        model = self.study.network.phases[state.phase].travelling(state.parameters)
        groups = random_groups(cohort, plan=plan) if plan.aggregation.takes_median else [cohort]
        return [self._prepare(state, model, group, whole) for group in groups]

    def _prepare(
        self, state: StateOf[Weights], model: Vector, cohort: tuple[str, ...], whole: tuple[str, ...]
    ) -> Attempt:
        """Make the next attempt's number durable, and prepare its order."""
        plan, facts = self.study.plan, self.study.network.phases[state.phase]
        digest = facts.model_digest(model)
        number = self.journal.record_attempt(
            phase=state.phase,
            round_number=state.round_number,
            cohort=cohort,
            model_digest=digest,
        )
        session = ServerSession(
            order=new_order(self.study, state, attempt=number, digest=digest, cohort=cohort, now_unix_s=time.time()),
            order_key=self.order_key,
            identities=self.study.identities,
            model=model.data.cast("B"),
            announced=self.announced,
            largest_norm=partial(facts.largest_norm, plan),
            threads=self.settings.threads,
        )
        start = self._start(state, number, cohort)
        self.events.on_attempt(start)
        doubtful = tuple(site for site in cohort if self.gathering.presence.refuses(site))
        times = self.settings.head_start_s, plan.timing.slow_multiple, self.settings.least_patience_s
        return Attempt(
            self.channel,
            session,
            self.events,
            start=start,
            whole=whole,
            patience=Patience(doubtful, *times),
            forwards=self.journal.record_forwarded,
        )

    def give_up(self, attempt: Attempt, aborted: RoundAbortedError) -> None:
        """Note an aborted attempt, and wait before the next."""
        self.failures.note(aborted.check, masked=attempt.forwarded)
        abort = self.note_lost(attempt, aborted)
        self.conclude(attempt)
        self.gathering.note([attempt])
        self.pause(abort)

    def note_lost(self, attempt: Attempt, aborted: RoundAbortedError) -> AbortRow:
        """Note that an attempt was aborted, and who was in its sum if that was not sound."""
        abort = AbortRow(attempt.number, TABLE[aborted.check].code, str(aborted), aborted.suspects)
        summed: tuple[str, ...] = ()
        if aborted.check in UNSOUND:
            # a secret that no shares rebuild: its dealer lied, or a site that opened a share; all of them had dealt
            summed = attempt.session.summed if aborted.check in SUMMED else attempt.session.dealers
            self.suspicions.note_unsound(frozenset(summed))
        self.journal.record_abort(abort, replace(attempt.details(), summed=summed))
        return abort

    def pause(self, abort: AbortRow) -> None:
        """Wait before the next attempt."""
        wait_s = self.failures.wait_s(self.settings.retries)
        self.events.on_aborted(abort, wait_s)
        self.gathering.pause(wait_s)

    def apply(self, attempt: Attempt, opened: OpenedSum, state: StateOf[Weights]) -> StateOf[Weights] | None:
        """Make the sum durable, then move the model by it; None where it cannot be applied (noted as aborted)."""
        row = attempt.opened_row(opened)
        give_back(opened.total.body_sum.nbytes)
        write_sum(self.study.folder.sums, attempt.number, opened.total)
        self.journal.record_opened(row, attempt.details())
        after = apply_opened(self.study, self.journal, state, row, opened.total)
        if after is None:
            self.failures.note(Check.ANY_INTERNAL)
            return None
        return after

    def announce(self, attempt: Attempt) -> None:
        """Tell every site that helped to unmask which model the next order brings; nothing depends on the answers."""
        row = self.journal.last_applied()
        if row is None:
            raise RuntimeError("nothing was applied that could be announced")
        asked = len(attempt.answers)
        packets = attempt.session.announce(model_digest=row.model_digest, divisor=row.divisor)
        self.announced[attempt.number] = attempt.session.announced_digest
        timeout_s = min(self.settings.result_timeout_s, self.study.plan.timing.stage_timeout_s)
        attempt.ask(Kind.RESULT, packets, timeout_s)
        self.journal.record_answers(attempt.answers[asked:])

    def close_attempt(self, attempt: Attempt, opened: OpenedSum) -> None:
        """Note who was there, and tell the watcher."""
        self.gathering.note([attempt])
        self.suspicions.note_sound(frozenset(attempt.whole), frozenset(opened.participants))
        self.conclude(attempt)
        self.failures.clear()
        start, plan = attempt.start, self.study.plan
        score = evaluation_of(
            plan,
            start.phase,
            start.round_number,
            meta=opened.total.meta,
            participants=len(opened.participants),
            is_scored=start.attempt in scored_attempts(plan, asked_attempts(self.journal)),
        )
        self.events.on_round(RoundEnd(start, opened.participants, opened.dropped, score, attempt.seconds))

    def end(self, state: RunState) -> RunEnd:
        """Return how the run ended, and tell the watcher."""
        applied, plan = self.journal.rounds_applied(), self.study.plan
        is_early = state is RunState.FINISHED and applied < total_rounds(plan)
        ended = RunEnd(state, f"{ENDED_EARLY if is_early else SENTENCES[state]} ({applied} rounds applied)", applied)
        self.events.on_finished(ended)
        return ended

    def _reason_to_end(self, state: StateOf[Weights], whole: tuple[str, ...] | None) -> RunState | None:
        plan = self.study.plan
        if self.should_stop():
            return RunState.STOPPED
        if not may_order(plan, charged_by_phase(plan, self.journal), state.phase):
            closing = is_closing(plan, state.phase, state.round_number)
            return RunState.NOT_SCORED if closing else RunState.NO_ATTEMPT_LEFT
        if orders(plan, self.journal) >= most_orders(plan):
            return RunState.NO_ORDER_LEFT
        sizes = {"cohort_size": len(whole or ()), "part_size": least_cohort(plan)}
        return self.failures.verdict(self.settings.retries, **sizes)

    def _start(self, state: StateOf[Weights], number: int, cohort: tuple[str, ...]) -> AttemptStart:
        plan = self.study.plan
        return AttemptStart(
            attempt=number,
            phase=state.phase,
            phase_name=plan.phases[state.phase].name,
            round_number=state.round_number,
            rounds=last_round(plan, state.phase),
            is_closing=is_closing(plan, state.phase, state.round_number),
            cohort=cohort,
        )

    def conclude(self, attempt: Attempt) -> None:
        """Write down what the sums so far prove of a site, for people, before a cohort follows from it."""
        plan = self.study.plan
        ranked = publicly_ranked(attempt.whole, plan=plan)
        row = self.suspicions.conclude(attempt.number, ranked, least=least_cohort(plan))
        if row is not None:
            tell_people(self.study, self.journal, row)
