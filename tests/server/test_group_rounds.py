"""Rounds of groups: whole runs with real sessions, where groups fail, sites drop out, and the server restarts."""

import numpy as np
import pytest

from client.secagg.journal import SiteJournal
from common.plan.errors import PlanInvalidError
from common.plan.protocol import divisor
from server.attempts.channel import Channel
from server.attempts.study_run import StudyRun
from server.model.checkpoint import same_state
from server.study.charged import charged_by_phase
from server.study.events import LoggedEvents, RunState
from server.study.folder import open_study
from server.study.history import attempt_records, scores_by_version
from server.study.journal import Journal
from server.study.progress import announced_results, current_state, open_journal, replay, resume
from server.study.status import study_status
from simulation.attacks.lying_sites import GarbageSite, always
from simulation.runtime.faults import Fault, Trouble

GROUPS_OF_THREE = {"cohort_size": 3, "threshold": 3, "minimum_survivors": 3}
GROUPS_OF_FIVE = {"cohort_size": 5, "threshold": 4, "minimum_survivors": 3}
SHORT = {"rounds": 2, "maximum_attempts": 12}


@pytest.fixture
def make_groups(make_federation):
    def make(sites, *, secure_aggregation=GROUPS_OF_THREE, short=SHORT, **sections):
        robust = {"robust": "median_of_groups", "average_decay": 0.5} | sections.pop("aggregation", {})
        return make_federation(
            sites, short=short, secure_aggregation=secure_aggregation, aggregation=robust, **sections
        )

    return make


class Told:
    """What a run left behind, checked for what must always hold."""

    def __init__(self, federation):
        self.study = open_study(federation.study)
        self.journal = open_journal(self.study)
        self.records = attempt_records(self.study, self.journal)
        self.state = current_state(self.study, self.journal)
        rules = self.study.plan.secure_aggregation
        for record in self.records:
            assert rules.least_cohort <= len(record.ordered.cohort) <= rules.cohort_size
            if record.opened:
                assert len(record.opened.participants) >= rules.minimum_survivors
        assert same_state(replay(self.study, self.journal), self.state)

    def rounds(self):
        """The records by round as it was tried: attempts of one round follow each other, and no site is in two."""
        found = []
        for record in self.records:
            place, cohort = (record.ordered.phase, record.ordered.round_number), set(record.ordered.cohort)
            if not found or found[-1][0] != place or cohort & found[-1][1]:
                found.append((place, set(), []))
            found[-1][1].update(cohort)
            found[-1][2].append(record)
        return found


def test_each_round_every_hospital_is_in_exactly_one_group_and_the_median_moves_the_model(make_groups):
    federation = make_groups(12)
    end = federation.run()
    told = Told(federation)
    assert (end.state, end.rounds_applied) == (RunState.FINISHED, 3)
    rounds = told.rounds()
    assert [place for place, _, _ in rounds] == [(0, 1), (0, 2), (0, 3)]
    for _, sites, records in rounds:
        assert sites == set(federation.names)
        assert [len(record.ordered.cohort) for record in records] == [3, 3, 3, 3]
        assert {record.outcome for record in records} == {"applied"}
    # drawn anew: the same four groups twice has a chance of one in 15400
    assert len({frozenset(record.ordered.cohort for record in records) for _, _, records in rounds}) > 1
    models = [work.models for work in federation.work.values()]
    assert all(each == models[0] for each in models)


def test_the_step_is_the_median_of_the_groups_means_by_their_own_divisors(make_groups):
    federation = make_groups(9, aggregation={"rule": "mean", "learning_rate": 1.0})
    federation.run()
    told = Told(federation)
    (_, _, records), network, plan = told.rounds()[0], told.study.network, told.study.plan
    means = []
    for record in records:
        names, length = record.opened.participants, network.phases[0].vector.body_length
        total = sum(federation.work[name].vector(0, record.ordered.attempt, length).astype(np.int64) for name in names)
        assert record.median.divisor == divisor(plan, plan.phases[0], names)
        means.append(total / record.median.divisor)
    expected = -np.median(means, axis=0)
    before, after = (np.frombuffer(federation.work["site-1"].models[index][2], np.float32) for index in (0, 1))
    moved = after.astype(np.float64) - before
    scale = np.dot(moved, expected) / np.dot(expected, expected)  # the lattice's step
    assert np.allclose(moved, scale * expected, rtol=1e-2, atol=abs(scale) * np.abs(expected).max() * 1e-3)


def test_counts_of_patients_add_up_over_the_groups(make_groups):
    federation = make_groups(9, evaluation={"every_rounds": 1})
    seen = []

    class Watch(LoggedEvents):
        def on_round(self, end):
            seen.append((len(end.participants), end.evaluation))

    federation.run(events=Watch())
    told = Told(federation)
    scores = scores_by_version(told.study, told.journal)
    assert [count for count, _ in seen] == [9, 9, 9]
    assert {score.patients for score in scores.values()} == {9 * 20.0}
    assert [score.score for _, score in seen if score] == [score.score for score in scores.values()]


def test_every_hospital_is_told_what_came_of_its_own_group(make_groups):
    federation = make_groups(9, short={"rounds": 1, "maximum_attempts": 12})
    federation.run()
    told = Told(federation)
    results = announced_results(told.journal)
    assert set(results) == {record.ordered.attempt for record in told.records}
    for record in told.records:
        for name in record.ordered.cohort:
            journal = SiteJournal(federation.path / name / "journal.sqlite")
            heard = journal.announcement_of(told.study.plan_digest, record.ordered.attempt)
            assert heard == results[record.ordered.attempt]
            journal.close()


def test_a_group_that_loses_a_hospital_fails_alone_and_the_others_move_the_model(make_groups):
    federation = make_groups(12)
    federation.run(Fault(Trouble.DROP, sites=("site-5",), actions=("keylist",), rounds=(1,)))
    told = Told(federation)
    _, _, records = told.rounds()[0]
    assert sorted(record.outcome for record in records) == ["aborted", "applied", "applied", "applied"]
    (lost,) = [record for record in records if record.outcome == "aborted"]
    assert "site-5" in lost.ordered.cohort
    assert len(told.journal.applied()) == 3


def test_with_two_groups_left_nothing_moves_the_round_is_done_again_and_their_sums_are_never_applied(make_groups):
    federation = make_groups(9, short={"rounds": 1, "maximum_attempts": 12})
    federation.run(Fault(Trouble.DROP, sites=("site-5",), actions=("keylist",), attempts=(1, 2, 3)))
    told = Told(federation)
    (_, _, first), (_, _, second) = told.rounds()[:2]
    assert {record.ordered.round_number for record in [*first, *second]} == {1}
    assert {record.outcome for record in first} == {"aborted"}
    assert sum(record.opened is not None for record in first) == 2
    assert {record.outcome for record in second} == {"applied"}
    assert all(not record.median for record in first)


def test_a_group_with_room_goes_on_without_a_hospital_that_drops_out(make_groups):
    federation = make_groups(15, secure_aggregation=GROUPS_OF_FIVE, short={"rounds": 1, "maximum_attempts": 12})
    federation.run(Fault(Trouble.DROP, sites=("site-7",), actions=("forward",), rounds=(1,)))
    told = Told(federation)
    assert {record.outcome for record in told.records} == {"applied"}
    assert len(told.rounds()) == 2


def test_attempts_are_counted_as_each_hospital_counts_them_and_not_once_for_each_group(make_groups):
    federation = make_groups(9, short={"rounds": 2, "maximum_attempts": 3})
    assert federation.run().state is RunState.FINISHED  # 9 orders, 3 for each hospital
    told = Told(federation)
    assert len(told.records) == 9
    status = study_status(told.study, told.journal)
    assert (status["attempts"], status["attempts_allowed"], status["rounds_applied"]) == (3, 3, 3)
    assert {len(work.models) for work in federation.work.values()} == {3}


def test_the_study_ends_when_a_hospital_s_attempts_are_used_up(make_groups):
    federation = make_groups(9, short={"rounds": 2, "maximum_attempts": 3})
    end = federation.run(Fault(Trouble.DROP, sites=("site-5",), actions=("forward",), rounds=(2,)))
    told = Told(federation)
    assert end.state is RunState.NO_ATTEMPT_LEFT
    assert charged_by_phase(told.study.plan, told.journal) == [3]
    assert len(told.journal.applied()) == 1


def test_garbage_spoils_one_group_only_and_the_hospital_is_found(make_groups):
    federation = make_groups(14, short={"rounds": 9, "maximum_attempts": 60})
    liar = "site-14"
    federation.sessions[liar] = GarbageSite(federation.sessions[liar], federation.keys[liar], always)
    assert federation.run().state is RunState.FINISHED
    told = Told(federation)
    assert len(told.journal.applied()) == 10
    row = told.journal.suspicions()[0]
    assert row.groups == ((liar,),)
    for record in told.records:
        assert (liar in record.ordered.cohort) == (record.outcome == "aborted")


@pytest.mark.parametrize("opened", [1, 2, 3, 4])
def test_a_server_that_stops_between_groups_applies_three_and_does_fewer_again(make_groups, monkeypatch, opened):
    federation = make_groups(12, short={"rounds": 1, "maximum_attempts": 12})
    record_opened, count = Journal.record_opened, []

    def killed_after(journal, row, details):
        record_opened(journal, row, details)
        count.append(row)
        if len(count) == opened:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record_opened", killed_after)
        with pytest.raises(KeyboardInterrupt):
            federation.run()
    federation.start_sites()
    assert federation.run().state is RunState.FINISHED
    told = Told(federation)
    kept = opened if opened >= 3 else 0
    assert [record.outcome for record in told.records[:4]] == ["applied"] * kept + ["aborted"] * (4 - kept)
    assert len(told.journal.applied()) == 2
    assert len(told.rounds()) == (2 if kept else 3)


def test_flower_s_steps_of_one_attempt_refuse_such_a_plan(make_groups):
    federation = make_groups(9)
    study = open_study(federation.study)
    channel = Channel(federation.grid(), frozenset(federation.names))
    run = StudyRun(study, federation.keys["site-1"], open_journal(study), channel)
    with pytest.raises(PlanInvalidError, match="several attempts"):
        run.open_attempt(resume(study, run.journal))
