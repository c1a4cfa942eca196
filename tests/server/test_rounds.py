"""Whole runs over Flower's Grid with real sessions on both sides: sums are right, or a round is cleanly skipped."""

import dataclasses
import hashlib

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from client.secagg.state import MaskedState
from common.plan.protocol import divisor
from common.plan.schedule import is_closing
from common.secagg.keys import sign
from common.secagg.messages import Masked, Packet, decode, encode
from common.secagg.refusals import TABLE, Check
from common.secagg.stages import SITE_SENDS, Kind
from common.secagg.statements import masked_statement
from server.app import FOLDER_KEY, app, run_study
from server.attempts.channel import Channel
from server.attempts.retries import RunSettings
from server.attempts.run_options import RunOptions, set_options
from server.attempts.study_run import StudyRun
from server.errors import StudyFolderInvalidError, StudyStoppedError
from server.model.checkpoint import same_state
from server.model.sums import read_sum
from server.strategy import FedwardStrategy
from server.study.events import LoggedEvents, RunState
from server.study.folder import StudyLock, open_study, read_order_key
from server.study.history import attempt_records, scores_by_version
from server.study.progress import current_state, open_journal, replay
from simulation.runtime.faults import Fault, Trouble

SHORT = {"rounds": 2, "maximum_attempts": 12}  # one phase, and the closing round
QUICK_TIMING = {"training_timeout_s": 0.4, "stage_timeout_s": 0.4}


class Ledger:
    """What a finished or stopped run left in its folder, checked for what must always hold."""

    def __init__(self, federation):
        self.study = open_study(federation.study)
        self.journal = open_journal(self.study)
        self.federation = federation
        self.state = current_state(self.study, self.journal)
        self.records = attempt_records(self.study, self.journal)

    def check(self):
        """Each applied sum is that of exactly its participants' vectors; the model is what they lead to."""
        plan = self.study.plan
        for record in self.records:
            if record.applied and record.opened:
                total = self.sum_of(record)
                names = record.opened.participants
                work = [self.federation.work[name] for name in names]
                key = record.ordered.round_number if plan.privacy.noise == "local" else record.ordered.attempt
                vectors = [each.vector(record.ordered.phase, key, total.body_sum.size) for each in work]
                if plan.privacy.noise != "local":
                    assert total.body_sum.tolist() == np.sum(vectors, 0).tolist()
                assert record.applied.divisor == divisor(plan, plan.phases[record.ordered.phase], names)
        applied = [(r.ordered.phase, r.ordered.round_number) for r in self.records if r.applied]
        assert applied == sorted(set(applied))
        assert [record.ordered.attempt for record in self.records] == list(range(1, len(self.records) + 1))
        assert same_state(replay(self.study, self.journal), self.state)
        return self

    def sum_of(self, record):
        spec = self.study.network.phases[record.ordered.phase].vector
        names, digest = record.opened.participants, record.opened.sum_digest
        return read_sum(
            self.study.folder.sums, record.ordered.attempt, spec=spec, participants=len(names), digest=digest
        )

    @property
    def outcomes(self):
        return [record.outcome for record in self.records]

    def answers(self, asked, site):
        return [row.outcome for row in self.journal.answers() if (row.asked, row.site) == (asked, site)]


def test_all_rounds_of_all_phases_are_applied_and_the_final_model_is_scored(make_federation):
    federation = make_federation()
    end = federation.run()
    ledger = Ledger(federation).check()
    assert (end.state, end.rounds_applied) == (RunState.FINISHED, 5)
    ordered = [(record.ordered.phase, record.ordered.round_number) for record in ledger.records]
    assert ordered == [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]
    assert is_closing(ledger.study.plan, 1, 3)
    assert ledger.state.finished
    assert ledger.journal.applied()[-1].finished
    assert {row.outcome for row in ledger.journal.answers()} == {"taken"}
    scores = scores_by_version(ledger.study, ledger.journal)
    assert {version: score.score for version, score in scores.items()} == {2: 0.8, 4: 1.0}
    assert scores[2].sensitivity == {"no": 0.8, "yes": 0.8}


def test_every_site_gets_the_model_that_the_round_before_led_to(make_federation):
    federation = make_federation()
    federation.run()
    ledger = Ledger(federation)
    received = [work.models for work in federation.work.values()]
    assert all(models == received[0] for models in received)
    start = ledger.study.network.start
    first = ledger.study.network.phases[0]
    assert received[0][0][2] == first.travelling(start).tobytes()
    # what the sites noted as announced is what the next order of the phase brought: they would refuse another
    assert [len(model) for _, _, model in received[0]] == [4 * first.travelling_parameters] * 2 + [4 * start.size] * 3


def test_a_head_phase_leaves_the_encoder_at_the_public_start(make_federation):
    federation = make_federation()
    stopping = StopAfter(2)
    federation.run(events=stopping, should_stop=stopping.should_stop)
    ledger = Ledger(federation).check()
    head = ledger.study.network.phases[0].trained
    assert np.array_equal(ledger.state.parameters[: head.start], ledger.study.network.start[: head.start])
    assert head.stop == ledger.state.parameters.size
    assert not np.array_equal(ledger.state.parameters[head], ledger.study.network.start[head])


def test_the_closing_round_scores_the_averaged_model_and_moves_nothing(make_federation):
    federation = make_federation()
    stopping = StopAfter(4)
    federation.run(events=stopping, should_stop=stopping.should_stop)
    before = Ledger(federation).state
    federation.run()
    ledger = Ledger(federation).check()
    assert np.array_equal(before.parameters, before.average)
    assert np.array_equal(ledger.state.parameters, before.parameters)
    assert federation.work["site-1"].models[-1][2] == before.parameters.tobytes()


SELECTIONS = {
    "last": lambda state: state.parameters,
    "last_average": lambda state: state.average,
}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_plan_says_which_model_is_the_result(make_federation, selection):
    federation = make_federation(aggregation={"model_selection": selection, "average_decay": 0.9})
    federation.run()
    state = Ledger(federation).check().state
    last_differs = not np.array_equal(state.parameters, state.average)
    assert last_differs == (selection == "last")


def test_the_best_scored_model_is_kept_where_the_plan_says_so(make_federation):
    federation = make_federation(
        noise="none", patients=4000, aggregation={"model_selection": "best_noised"}, evaluation={"every_rounds": 1}
    )
    for work in federation.work.values():
        work.counts = lambda version, work=work: type(work).counts(work, {3: 4}.get(version, 0))  # version 3 is best
    federation.run()
    ledger = Ledger(federation)
    best = federation.work["site-1"].models[3]
    assert best[:2] == (1, 2)
    assert ledger.state.parameters.tobytes() == best[2]
    assert ledger.state.best_score == 1.0


@pytest.mark.parametrize("noise", ["local", "none"])
def test_other_placements_of_noise_run_too(make_federation, noise):
    federation = make_federation(noise=noise)
    assert federation.run().state is RunState.FINISHED
    Ledger(federation).check()


# stage -> how many vectors are in the sum when one of four sites fails there
STAGES = {"order": 3, "keylist": 3, "forward": 3, "survivors": 4, "certificate": 4, "result": 4}


@pytest.mark.parametrize("trouble", [Trouble.DROP, Trouble.DROP_AFTER, Trouble.GARBAGE])
@pytest.mark.parametrize("stage", STAGES)
def test_one_site_that_fails_at_a_stage_costs_no_round(make_federation, stage, trouble):
    federation = make_federation(short=SHORT)
    end = federation.run(Fault(trouble, sites=("site-2",), actions=(stage,), attempts=(2,)))
    ledger = Ledger(federation).check()
    assert (end.state, ledger.outcomes) == (RunState.FINISHED, ["applied"] * 3)
    members = STAGES[stage]
    assert len(ledger.records[1].opened.participants) == members
    assert len(ledger.records[2].opened.participants) == 4
    outcome = ledger.answers(stage, "site-2")[1]
    assert outcome.startswith("rejected:" if trouble is Trouble.GARBAGE else "failed:")


@pytest.mark.parametrize("stage", ["order", "forward", "certificate"])
def test_too_many_failures_abort_the_attempt_and_the_next_one_is_fresh(make_federation, stage):
    federation = make_federation(short=SHORT)
    end = federation.run(Fault(Trouble.DROP, sites=("site-2", "site-3"), actions=(stage,), attempts=(2,)))
    ledger = Ledger(federation).check()
    assert (end.state, ledger.outcomes) == (RunState.FINISHED, ["applied", "aborted", "applied", "applied"])
    assert ledger.journal.aborts()[0].code == TABLE[Check.C_TOO_FEW].code
    assert ledger.records[1].ordered.round_number == ledger.records[2].ordered.round_number == 2


def test_a_site_that_hangs_is_waited_for_once_and_then_rests(make_federation):
    federation = make_federation(timing=QUICK_TIMING)
    federation.run(Fault(Trouble.HANG, sites=("site-4",), actions=("order",)))
    ledger = Ledger(federation).check()
    cohorts = [record.ordered.cohort for record in ledger.records]
    assert [len(cohort) for cohort in cohorts] == [4, 3, 4, 3, 3]
    assert ledger.answers("order", "site-4") == ["timeout", "timeout"]


def test_an_answer_that_comes_late_changes_nothing(make_federation):
    federation = make_federation(timing=QUICK_TIMING)
    end = federation.run(Fault(Trouble.SLOW, sites=("site-1",), actions=("keylist",), attempts=(1,), delay_s=0.8))
    ledger = Ledger(federation).check()
    assert end.state is RunState.FINISHED
    assert ledger.records[0].opened.dropped == ("site-1",)


def test_a_run_that_keeps_failing_ends_with_a_clear_state(make_federation):
    federation = make_federation()
    end = federation.run(Fault(Trouble.DROP, sites=("site-1", "site-2"), actions=("keylist",)))
    ledger = Ledger(federation).check()
    assert (end.state, ledger.outcomes) == (RunState.KEEPS_FAILING, ["aborted"] * 5)
    assert federation.run().state is RunState.FINISHED


def test_attempts_beyond_the_plan_are_never_ordered(make_federation):
    federation = make_federation(short={"rounds": 2, "maximum_attempts": 7})
    faults = Fault(Trouble.DROP, sites=("site-1", "site-2"), actions=("forward",))
    ends = [federation.run(faults).state for _ in range(2)]
    assert ends == [RunState.KEEPS_FAILING, RunState.NO_ATTEMPT_LEFT]
    assert len(Ledger(federation).records) == 7
    assert {len(work.models) for work in federation.work.values()} == {7}


def test_without_an_attempt_to_spare_the_final_model_stands_unscored(make_federation):
    federation = make_federation(short={"rounds": 3, "maximum_attempts": 5})
    end = federation.run(Fault(Trouble.DROP, sites=("site-1", "site-2"), actions=("forward",), rounds=(4,)))
    assert end.state is RunState.NOT_SCORED
    assert list(scores_by_version(Ledger(federation).study, Ledger(federation).journal)) == [2]


def test_too_few_sites_end_a_run_before_anything_is_ordered(make_federation):
    federation = make_federation()
    end = federation.run(Fault(Trouble.DROP, sites=("site-1", "site-2"), actions=("hello",)))
    assert (end.state, Ledger(federation).records) == (RunState.NO_COHORT, [])


def test_a_node_that_takes_another_sites_name_cannot_speak_for_it(make_federation):
    federation = make_federation()
    grid = federation.grid(hello={"site-1": "site-2", "site-2": "site-1"})
    end = federation.run(grid=grid)
    ledger = Ledger(federation).check()
    # both answer under their own signature: the first answers show who is where, and from then on all is well
    assert (end.state, ledger.outcomes) == (RunState.FINISHED, ["applied"] * 5)
    assert ledger.answers("order", "site-1") == ["rejected:site", *["taken"] * 4]
    assert ledger.answers("keylist", "site-1") == ["taken"] * 5


def test_a_liar_that_was_greeted_first_loses_the_name_when_its_signature_does_not_fit(make_federation):
    federation = make_federation()
    end = federation.run(grid=federation.grid(hello={"site-1": "site-2"}))
    ledger = Ledger(federation).check()
    assert end.state is RunState.FINISHED
    assert ledger.answers("order", "site-2") == ["rejected:C.site", *["taken"] * 5]
    assert all(record.opened.participants == ("site-2", "site-3", "site-4") for record in ledger.records[1:])


def test_a_name_that_is_not_in_the_plan_takes_no_part(make_federation):
    federation = make_federation()
    federation.run(grid=federation.grid(hello={"site-4": "strangers"}))
    ledger = Ledger(federation).check()
    assert all(record.ordered.cohort == ("site-1", "site-2", "site-3") for record in ledger.records)


class GarbageSite:
    """A site that signs and sends a vector of noise: nothing but the check of the sum can see it."""

    def __init__(self, session, key):
        self.session, self.key, self.dealers = session, key, b""

    def receive(self, message, payload):
        packet = self.session.receive(message, payload)
        kind, sent = decode(packet.message, SITE_SENDS)
        if kind is not Kind.MASKED or not isinstance(self.session._state, MaskedState):
            return packet
        noise = np.random.default_rng().integers(0, 256, len(packet.payload), np.uint8)
        vector = np.frombuffer(packet.payload, np.uint8) ^ noise
        digest = hashlib.sha256(vector).digest()
        statement = masked_statement(sent.session_id, self.session._state.dealers_digest, sent.site_id, digest)
        forged = dataclasses.replace(sent, vector_digest=digest, signature=sign(self.key, *statement))
        assert isinstance(forged, Masked)
        return Packet(encode(forged), vector.data)


def test_a_site_that_sends_garbage_is_left_out_after_parts_were_tried(make_federation):
    federation = make_federation()
    federation.sessions["site-3"] = GarbageSite(federation.sessions["site-3"], federation.keys["site-3"])
    end = federation.run()
    ledger = Ledger(federation).check()
    assert end.state is RunState.FINISHED
    unsound = [abort for abort in ledger.journal.aborts() if abort.code == TABLE[Check.C_SUM].code]
    assert 2 <= len(unsound) <= 5
    assert all(record.ordered.cohort == ("site-1", "site-2", "site-4") for record in ledger.records if record.applied)
    assert not any(record.opened for record in ledger.records if record.outcome == "aborted")


def test_garbage_in_the_least_cohort_ends_the_run(make_federation):
    federation = make_federation(3)
    federation.sessions["site-3"] = GarbageSite(federation.sessions["site-3"], federation.keys["site-3"])
    end = federation.run()
    assert (end.state, Ledger(federation).outcomes) == (RunState.UNSOUND_SUMS, ["aborted"] * 3)


class StopAfter(LoggedEvents):
    """Asks to stop after some rounds."""

    def __init__(self, rounds):
        self.left = rounds
        self.seen = []

    def on_attempt(self, start):
        self.seen.append(("attempt", start.attempt, start.round_number))

    def on_round(self, end):
        self.left -= 1
        self.seen.append(("round", end.start.attempt, len(end.participants)))

    def on_finished(self, end):
        self.seen.append(("end", end.state))

    def should_stop(self):
        return self.left <= 0


def test_a_stopped_run_goes_on_where_it_stopped(make_federation):
    federation = make_federation()
    first = StopAfter(2)
    end = federation.run(events=first, should_stop=first.should_stop)
    assert (end.state, end.rounds_applied) == (RunState.STOPPED, 2)
    assert first.seen == [
        ("attempt", 1, 1),
        ("round", 1, 4),
        ("attempt", 2, 2),
        ("round", 2, 4),
        ("end", RunState.STOPPED),
    ]
    federation.start_sites()
    assert federation.run().rounds_applied == 5
    assert Ledger(federation).check().outcomes == ["applied"] * 5
    assert federation.run().state is RunState.FINISHED  # and once it is finished nothing more is ordered
    assert len(Ledger(federation).records) == 5


def test_two_servers_never_run_one_study(make_federation):
    federation = make_federation()
    lock = StudyLock(open_study(federation.study).folder)
    with pytest.raises(StudyFolderInvalidError, match="another process"):
        federation.run()
    lock.release()
    assert federation.run().state is RunState.FINISHED


def test_sites_may_answer_in_any_order_from_many_threads(make_federation):
    federation = make_federation(6)
    grid = federation.grid(workers=4)
    assert federation.run(grid=grid).state is RunState.FINISHED
    grid.close()
    Ledger(federation).check()


def test_flowers_own_loop_runs_the_same_rounds(make_federation):
    federation = make_federation()
    study = open_study(federation.study)
    journal, key = open_journal(study), read_order_key(study)
    strategy = FedwardStrategy(lambda grid: StudyRun(study, key, journal, Channel(grid, frozenset(federation.names))))
    result = Strategy.start(strategy, federation.grid(), ArrayRecord(), num_rounds=7, timeout=5.0)
    ledger = Ledger(federation).check()
    assert ledger.outcomes == ["applied"] * 5
    assert strategy.ended.state is RunState.FINISHED
    arrays = [array.numpy().reshape(-1) for array in result.arrays.values()]
    assert np.array_equal(np.concatenate(arrays), ledger.state.parameters)


def test_the_server_app_finds_the_study_in_its_run_config(make_federation):
    federation = make_federation()
    grid = federation.grid()
    context = next(iter(grid._nodes.values())).context
    context.run_config[FOLDER_KEY] = str(federation.study)
    watcher = StopAfter(9)
    set_options(federation.study, RunOptions(events=watcher))
    app(grid, context)
    assert watcher.seen[-1] == ("end", RunState.FINISHED)


def test_the_server_app_fails_loudly_where_a_study_cannot_go_on(make_federation):
    federation = make_federation()
    grid = federation.grid(Fault(Trouble.DROP, actions=("hello",)))
    context = next(iter(grid._nodes.values())).context
    context.run_config[FOLDER_KEY] = str(federation.study)
    set_options(federation.study, RunOptions(settings=RunSettings(cohort_wait_s=0.0)))
    with pytest.raises(StudyStoppedError, match="too few sites"):
        app(grid, context)
    assert run_study(federation.grid(), federation.study, RunOptions()).state is RunState.FINISHED
