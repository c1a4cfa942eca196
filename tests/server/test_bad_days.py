"""Bad days: a hospital refuses, falls silent or is away; the study waits, says for whom, and goes on by itself."""

import math
import sqlite3
from dataclasses import replace

import pytest

from client.secagg.journal import SiteJournal
from client.secagg.session import SiteSession
from common.secagg.refusals import TABLE, Check
from server.attempts.retries import RetryRules, RunSettings
from server.deployment.going_on import GoOnSignal, say_go_on
from server.study.charged import charged_by_phase, orders
from server.study.events import LoggedEvents, RunState
from server.study.folder import open_study
from server.study.history import attempt_records
from server.study.live_status import LiveFile, read_live_status, waiting_of
from server.study.progress import open_journal
from server.study.status import study_status
from simulation.runtime.faults import Fault, Trouble

PATIENT = RunSettings(
    cohort_wait_s=math.inf,
    gather_s=0.0,
    result_timeout_s=5.0,
    head_start_s=5.0,
    look_every_s=0.01,
    retries=RetryRules(first_wait_s=0.01, is_patient=True, longest_wait_s=0.05, longest_unmasked_wait_s=0.05),
)
NOT_BY_ITSELF = replace(PATIENT, retries=replace(PATIENT.retries, first_wait_s=3600.0))
SHORT = {"rounds": 2, "maximum_attempts": 4}  # with the closing round: one to spare


class Withdrawn:
    """A hospital whose staff took the approval back: its session knows another plan only."""

    def __init__(self, federation, name):
        self.federation, self.name = federation, name
        self.session = federation.sessions[name]
        policy = replace(self.session._site.policy, plan_digest=bytes(32))
        journal = SiteJournal(federation.path / name / "other.sqlite")
        federation.sessions[name] = SiteSession(
            policy=policy, identity=federation.keys[name], journal=journal, work=federation.work[name]
        )

    def approve_again(self):
        self.federation.sessions[self.name] = self.session


class Watcher(LoggedEvents):
    """Remembers for whom was waited, and does ``mend`` when that was said ``times`` times."""

    def __init__(self, mend, times=1):
        self.mend, self.times, self.said, self.waits = mend, times, [], 0

    def on_missing(self, missing):
        super().on_missing(missing)
        self.said.append(missing)

    def on_waiting(self, online, needed):
        super().on_waiting(online, needed)
        self.waits += 1
        if self.waits == self.times:
            self.mend()


def told(federation):
    study = open_study(federation.study)
    journal = open_journal(study)
    return study, journal, attempt_records(study, journal)


def test_a_hospital_that_withdraws_is_named_and_the_study_waits_until_it_approves_again(make_federation):
    federation = make_federation(3, short=SHORT)
    south = Withdrawn(federation, "site-2")
    watcher = Watcher(south.approve_again, times=3)
    assert federation.run(settings=PATIENT, events=watcher).state is RunState.FINISHED
    study, journal, records = told(federation)
    [missing] = {
        each for said in watcher.said for each in said if each.site == "site-2" and each.why != "offline"
    } and {(each.site, each.why, each.code) for said in watcher.said for each in said}
    assert missing == ("site-2", Check.R0_PLAN, TABLE[Check.R0_PLAN].code)
    assert "telephone" in watcher.said[0][0].sentence
    assert [record.outcome for record in records[-3:]] == ["applied"] * 3
    assert len(records) > 4, "it was asked more often than the plan has attempts"
    assert charged_by_phase(study.plan, journal) == [3], "and none of that was charged"
    assert study_status(study, journal)["orders"] == len(records)


def test_while_a_hospital_refuses_nobody_else_is_asked_to_train(make_federation):
    federation = make_federation(3, short=SHORT)
    south = Withdrawn(federation, "site-2")
    federation.run(settings=PATIENT, events=Watcher(south.approve_again, times=3))
    _, journal, records = told(federation)
    refused = [record.ordered.attempt for record in records if record.outcome == "aborted"]
    asked = {row.attempt: set() for row in journal.answers()}
    for row in journal.answers():
        asked[row.attempt].add(row.site)
    assert [asked[attempt] for attempt in refused[1:]] == [{"site-2"}] * (len(refused) - 1)
    assert len(refused) >= 2


def test_where_enough_others_are_there_the_rounds_go_on_without_the_hospital_that_refuses(make_federation):
    federation = make_federation(4, short={"rounds": 3, "maximum_attempts": 4})
    Withdrawn(federation, "site-2")
    assert federation.run(settings=NOT_BY_ITSELF).state is RunState.FINISHED
    _, _, records = told(federation)
    assert [record.outcome for record in records] == ["applied"] * 4
    assert ["site-2" in record.ordered.cohort for record in records] == [True, False, False, False]


def test_go_on_asks_at_once_whoever_refused(make_federation):
    federation = make_federation(3, short=SHORT)
    south, signal = Withdrawn(federation, "site-2"), GoOnSignal(federation.study)

    def mend():
        south.approve_again()
        say_go_on(federation.study)

    end = federation.run(settings=replace(NOT_BY_ITSELF, head_start_s=0.0), events=Watcher(mend), asked_to_go_on=signal)
    assert end.state is RunState.FINISHED
    _, _, records = told(federation)
    assert [record.outcome for record in records] == ["aborted", *["applied"] * 3]


class Away:
    """A grid from which a node is missing for a while."""

    def __init__(self, grid, number):
        self.grid, self.number, self.is_away = grid, number, True

    def get_node_ids(self):
        nodes = sorted(self.grid.get_node_ids())
        return [node for place, node in enumerate(nodes) if not (self.is_away and place == self.number)]

    def __getattr__(self, name):
        return getattr(self.grid, name)


def test_too_few_hospitals_are_waited_for_and_a_hospital_that_is_away_is_named(make_federation):
    federation = make_federation(3, short=SHORT)
    grid = Away(federation.grid(), 1)

    def back():
        grid.is_away = False

    watcher = Watcher(back)
    assert federation.run(grid=grid, settings=PATIENT, events=watcher).state is RunState.FINISHED
    assert [(each.site, each.why) for each in watcher.said[0]] == [("site-2", "offline")]
    assert "agent and its network" in watcher.said[0][0].sentence


def test_a_hospital_that_was_away_and_comes_back_is_asked_at_once_although_it_refused(make_federation, monkeypatch):
    monkeypatch.setattr("server.attempts.channel.GREET_AGAIN_S", 0.0)
    federation = make_federation(3, short=SHORT)
    south, grid = Withdrawn(federation, "site-2"), Away(federation.grid(), 1)
    grid.is_away = False

    class Days(LoggedEvents):
        def on_missing(self, missing):
            grid.is_away = [each.why for each in missing] == ["R0.plan"]
            if not grid.is_away:
                south.approve_again()

    assert federation.run(grid=grid, settings=NOT_BY_ITSELF, events=Days()).state is RunState.FINISHED


# stage at which two of four are lost, once -> how many of the attempts are charged, of two rounds and the closing one
LOST = {"order": 3, "keylist": 3, "forward": 4, "certificate": 4}


@pytest.mark.parametrize("stage", LOST)
def test_an_attempt_costs_one_of_the_plan_s_only_if_a_masked_vector_may_have_left(make_federation, stage):
    federation = make_federation(short=SHORT)
    lost = Fault(Trouble.DROP, sites=("site-1", "site-2"), actions=(stage,), attempts=(2,))
    assert federation.run(lost, settings=PATIENT).state is RunState.FINISHED
    study, journal, records = told(federation)
    assert len(records) == 4
    assert charged_by_phase(study.plan, journal) == [LOST[stage]]
    for name in federation.names:
        site = SiteJournal(federation.path / name / "journal.sqlite")
        assert 3 <= site.masked_in(study.plan_digest, 0) <= LOST[stage], (
            "a hospital counts no more than the coordinator"
        )


def test_hospitals_whose_programs_fail_for_a_while_end_nothing_and_cost_nothing(make_federation):
    """Two of four fail in as many attempts as the plan has, and more: nothing was masked, so nothing is used up."""
    federation = make_federation(short=SHORT)
    lost = Fault(Trouble.DROP, sites=("site-1", "site-2"), actions=("order",), attempts=tuple(range(1, 15)))
    watcher = Watcher(lambda: None)
    assert federation.run(lost, settings=PATIENT, events=watcher).state is RunState.FINISHED
    study, journal, records = told(federation)
    assert [record.outcome for record in records] == [*["aborted"] * 14, *["applied"] * 3]
    assert charged_by_phase(study.plan, journal) == [3]
    assert orders(study.plan, journal) == 17
    assert [(each.site, each.why) for each in watcher.said[-1]] == [("site-1", "failed"), ("site-2", "failed")]


def test_orders_are_limited_however_little_they_cost(make_federation, monkeypatch):
    monkeypatch.setattr("server.attempts.study_run.most_orders", lambda plan: 6)
    federation = make_federation(short=SHORT)
    lost = Fault(Trouble.DROP, sites=("site-1", "site-2"), actions=("order",))
    assert federation.run(lost, settings=PATIENT).state is RunState.NO_ORDER_LEFT
    assert len(told(federation)[2]) == 6


def test_the_file_of_the_moment_says_for_whom_is_waited_since_when_and_what_to_do(make_federation, tmp_path):
    federation = make_federation(3, short=SHORT)
    south, found = Withdrawn(federation, "site-2"), []

    def look():
        found.append(waiting_of(federation.study))
        south.approve_again()

    events = LiveFile(federation.study, Watcher(look))
    federation.run(settings=PATIENT, events=events)
    [waiting] = found
    assert (waiting["hospitals"], waiting["needed"]) == (2, 3)
    [missing] = waiting["for"]
    assert (missing["site"], missing["why"], missing["code"]) == ("site-2", "R0.plan", 104)
    assert min(missing["since_unix_s"], waiting["since_unix_s"]) > 1e9
    assert missing["asked_again_unix_s"] >= missing["since_unix_s"]
    assert "site-2 refuses with code 104" in missing["sentence"]
    assert waiting_of(federation.study) is None, "it waits no more"
    assert read_live_status(federation.study).missing == []


def test_of_a_journal_of_before_every_attempt_counts_as_charged(make_federation):
    federation = make_federation(short=SHORT)
    federation.run(Fault(Trouble.DROP, sites=("site-1", "site-2"), actions=("order",), attempts=(2,)), settings=PATIENT)
    study, journal, _ = told(federation)
    journal.close()
    with sqlite3.connect(study.folder.journal) as database:
        database.execute("DROP TABLE forwarded")
    database.close()
    assert charged_by_phase(study.plan, open_journal(study)) == [4]


def test_of_a_hospital_s_journal_of_before_every_attempt_counts(tmp_path):
    file, plan = tmp_path / "journal.sqlite", bytes(32)
    before = SiteJournal(file)
    for attempt, phase in ((1, 0), (2, 0), (3, 1)):
        before.record_attempt(plan, phase, attempt)
    before.skip_to(plan, 9)
    assert [before.masked_in(plan, phase) for phase in (0, 1)] == [0, 0]
    before.close()
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE masked")
    database.close()
    again = SiteJournal(file)
    assert [again.masked_in(plan, phase) for phase in (0, 1)] == [2, 1]
    again.record_masked(plan, 1, 10)
    again.close()
    assert [SiteJournal(file).masked_in(plan, phase) for phase in (0, 1)] == [2, 2]
