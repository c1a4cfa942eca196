"""A round of groups: one attempt for each, stage by stage together, and one step on the median of their means.

Each group is an ordinary attempt to its hospitals: an order, a number and a sum of its own, which must hold the least
number of hospitals and the whole noise. A group that fails costs its own attempt only. Sums that were opened wait in
the journal until every group of the round was opened or given up; then the median of at least three moves the model.
Memory: the sums of all groups, because their masked vectors come in at one time.
"""

from collections.abc import Callable

from common.secagg.messages import Packet
from common.secagg.refusals import Check, RoundAbortedError
from common.secagg.stages import Kind
from server.attempts.attempt import Attempt
from server.attempts.exchange import NOBODY_LATE, Late
from server.attempts.retries import UNSOUND
from server.attempts.study_run import StudyRun
from server.model.blocks import Weights
from server.model.group_median import summed_counts
from server.model.state import StateOf, evaluation_of
from server.model.sums import write_sum
from server.secagg.opening import OpenedSum
from server.secagg.session import ServerSession
from server.study.events import RoundEnd, RunState
from server.study.journal_rows import AbortRow, OpenedRow
from server.study.progress import apply_groups
from server.study.score_limit import asked_attempts, scored_attempts

PacketsOf = Callable[[Attempt], dict[str, Packet]]


def run_group_round(run: StudyRun, state: StateOf[Weights]) -> StateOf[Weights] | RunState:
    """Make one attempt at the state's round with every group; returns as ``server.rounds.run_round``."""
    attempts = run.open_groups(state)
    if isinstance(attempts, RunState):
        return attempts
    groups, timing = GroupRound(run, attempts), run.study.plan.timing
    vector_bytes = run.study.network.phases[state.phase].vector.payload_bytes
    groups.ask(Kind.ORDER, lambda attempt: attempt.session.start(), timing.training_timeout_s)
    for kind in (Kind.KEYLIST, Kind.FORWARD, Kind.SURVIVORS, Kind.CERTIFICATE):
        reply_bytes = vector_bytes if kind is Kind.FORWARD else 0
        groups.ask(kind, lambda attempt: attempt.session.advance(), timing.stage_timeout_s, reply_bytes=reply_bytes)
    after = apply_groups(run.study, run.journal, state, groups.open())
    if after is None:
        groups.give_up()
        return state
    groups.announce()
    groups.close()
    return after


class GroupRound:
    """The attempts of one round, as many as there are groups.

    Attributes: live, those that are still going on; opened, what the sums of those that were opened held; lost, how
    each of the others ended.
    """

    def __init__(self, run: StudyRun, attempts: list[Attempt]) -> None:
        self._run, self._all, self.live = run, tuple(attempts), list(attempts)
        self.opened: list[OpenedRow] = []
        self.lost: list[tuple[Check, AbortRow]] = []

    def ask(self, kind: Kind, packets_of: PacketsOf, timeout_s: float, *, reply_bytes: int = 0) -> None:
        """Send one stage to all groups at once; a group that cannot go on is noted as aborted."""
        stages = []
        for attempt in tuple(self.live):
            try:
                packets = packets_of(attempt)
            except RoundAbortedError as aborted:
                self._lose(attempt, aborted)
            else:
                stages.append(attempt.stage(kind, packets, timeout_s, reply_bytes=reply_bytes))
        if stages:
            sites = sorted(site for stage in stages for site in stage.sites)
            self._run.events.on_stage(kind.value, tuple(sites), timeout_s)
            patience = self.live[0].patience
            late = Late(patience.slow_multiple, patience.least_s, self._have_enough)
            self._run.channel.ask(*stages, late=NOBODY_LATE if kind is Kind.RESULT else late)

    def open(self) -> list[OpenedRow]:
        """Open every sum and make it durable, each before the next; return their rows."""
        for attempt in tuple(self.live):
            try:
                opened: OpenedSum = attempt.session.finish()
            except RoundAbortedError as aborted:
                self._lose(attempt, aborted)
                continue
            row = attempt.opened_row(opened)
            write_sum(self._run.study.folder.sums, attempt.number, opened.total)
            self._run.journal.record_opened(row, attempt.details())
            self.opened.append(row)
        return self.opened

    def give_up(self) -> None:
        """Note that the round comes to nothing, and wait before it is done again."""
        checks = [check for check, _ in self.lost]
        unsound = [check for check in checks if check in UNSOUND]
        masked = any(attempt.forwarded for attempt in self._all)
        self._run.failures.note(next(iter(unsound + checks), Check.ANY_INTERNAL), masked=masked)
        self._conclude()
        self._run.pause(next(row for row in reversed(self._run.journal.aborts())))

    def announce(self) -> None:
        """Tell the hospitals of every opened group which model the median led to; nothing depends on the answers."""
        step, journal = self._run.journal.last_applied(), self._run.journal
        if step is None:
            raise RuntimeError("nothing was applied that could be announced")
        divisors = {each.attempt: each.divisor for each in journal.medians() if each.applied == step.attempt}
        asked = [(attempt, len(attempt.answers)) for attempt in self.live]
        timeout_s = min(self._run.settings.result_timeout_s, self._run.study.plan.timing.stage_timeout_s)

        def packets_of(attempt: Attempt) -> dict[str, Packet]:
            session: ServerSession = attempt.session
            packets = session.announce(model_digest=step.model_digest, divisor=divisors[attempt.number])
            self._run.announced[attempt.number] = session.announced_digest
            return packets

        self.ask(Kind.RESULT, packets_of, timeout_s)
        journal.record_answers([row for attempt, before in asked for row in attempt.answers[before:]])

    def close(self) -> None:
        """Note who was there, and tell the watcher of one round: everybody in a sum, and all that were counted."""
        run, last = self._run, self._all[-1]
        participants = tuple(sorted(site for row in self.opened for site in row.participants))
        dropped = tuple(sorted(site for row in self.opened for site in row.dropped))
        if not self.lost:
            run.suspicions.note_sound(frozenset(last.whole), frozenset(participants))
        self._conclude()
        run.failures.clear()
        start = self.live[-1].start
        scored = scored_attempts(run.study.plan, asked_attempts(run.journal))
        score = evaluation_of(
            run.study.plan,
            start.phase,
            start.round_number,
            meta=summed_counts([row.meta for row in self.opened]),
            participants=len(participants),
            is_scored={row.attempt for row in self.opened} <= scored,
        )
        run.events.on_round(RoundEnd(start, participants, dropped, score, last.seconds))

    def _have_enough(self) -> bool:
        return all(attempt.session.has_enough for attempt in self.live)

    def _lose(self, attempt: Attempt, aborted: RoundAbortedError) -> None:
        """Note an aborted group; the others go on."""
        self.live.remove(attempt)
        abort = self._run.note_lost(attempt, aborted)
        self.lost.append((aborted.check, abort))
        self._run.events.on_aborted(abort, 0.0)

    def _conclude(self) -> None:
        """Write down once for the round what its sums prove, and who was silent in it."""
        self._run.conclude(self._all[-1])
        self._run.gathering.note(self._all)
