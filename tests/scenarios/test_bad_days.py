"""Bad days of a study with real hospitals (folders, ledgers, approvals, protocol); only the training is made up."""

import math
from dataclasses import replace

import pytest

from client.consent.approval import approve, withdraw_approval
from client.installation.folder import SiteFolder
from client.ledger.budget import EntryKind
from common.plan.reading import read_plan
from common.secagg.refusals import Check
from server.attempts.retries import RetryRules, RunSettings
from server.attempts.run_options import RunOptions
from server.study.charged import charged_by_phase
from server.study.events import LoggedEvents, RunState
from server.study.folder import open_study
from simulation.runtime.made_up_work import made_up_site, numbered_update
from simulation.study.run_folder import RunFolder
from simulation.study.running import run_rounds_over_loopback
from simulation.study.scenario_reading import parse_scenario
from simulation.study.site_building import build_bare_run

from .conftest import BareRun

SITES = ("hospital-1", "hospital-2", "hospital-3")
ROUNDS = 21
pytestmark = pytest.mark.slow
PATIENT = RunSettings(
    cohort_wait_s=math.inf, gather_s=0.0, result_timeout_s=5.0, look_every_s=0.01,
    retries=RetryRules(first_wait_s=0.005, is_patient=True, longest_unmasked_wait_s=0.02),
)  # fmt: skip


@pytest.fixture
def three(tmp_path, bare_document):
    """A study of three hospitals that are all needed, of 21 rounds with one attempt to spare."""
    bare_document["hospitals"]["sites"] = 3
    bare_document["study"]["secure_aggregation"] |= {"cohort_size": 3, "threshold": 3}
    bare_document["study"]["phases"][0] |= {"rounds": ROUNDS, "maximum_attempts": ROUNDS + 1}
    folder, scenario = RunFolder(tmp_path / "run"), parse_scenario(bare_document, "three")
    build_bare_run(folder, scenario, dict.fromkeys(SITES, (50, 50)))
    return BareRun(folder, scenario, read_plan(folder.study.plan))


class Day(LoggedEvents):
    """What staff and coordinator do, and what the watcher was told."""

    def __init__(self, at_round, begin, mend, waits):
        self.at_round, self.begin, self.mend, self.left = at_round, begin, mend, waits
        self.said, self.states = [], []

    def on_round(self, end):
        super().on_round(end)
        if end.start.round_number == self.at_round:
            self.begin()

    def on_missing(self, missing):
        super().on_missing(missing)
        self.said.append({(each.site, each.why) for each in missing})

    def on_waiting(self, online, needed):
        super().on_waiting(online, needed)
        self.left -= 1
        if self.left == 0:
            self.mend()


def run(three, day, settings=PATIENT):
    return run_rounds_over_loopback(
        three.folder,
        three.scenario,
        three.plan,
        RunOptions(settings=settings, longest_poll_s=0.01, events=day),
        open_site=lambda path: made_up_site(path, numbered_update),
    )


def test_a_hospital_that_withdraws_in_round_13_of_21_is_waited_for_and_the_study_ends_well(three):
    site = SiteFolder(three.folder.site(SITES[1]))

    def withdraw():
        withdraw_approval(site, three.plan.digest(), approver="Dr South")

    def approve_again():
        approve(site, three.folder.study.plan, approver="Dr South")

    day = Day(12, withdraw, approve_again, waits=3)
    assert run(three, day).state is RunState.FINISHED
    assert day.said[-1] == {(SITES[1], Check.R0_PLAN)}, "the hospital is named, with the code by which it refuses"
    study, journal = open_study(three.folder.study.path), three.journal()
    assert journal.rounds_applied() == ROUNDS
    assert charged_by_phase(study.plan, journal) == [ROUNDS], "the attempt to spare is still there"
    assert len(journal.attempts()) > ROUNDS + 1, "it was asked more often than the plan has attempts"
    for name in SITES:
        [spending] = three.spending(name)
        spent = [attempt for attempt, kind in spending.attempts.items() if kind is EntryKind.SPENT]
        assert len(spent) == ROUNDS
        assert spending.beyond_promise() is None
        assert EntryKind.RESERVED not in spending.attempts.values(), "what came to nothing was given back"


def test_without_the_waiting_the_same_withdrawal_still_ends_a_run_that_is_not_to_wait(three):
    site = SiteFolder(three.folder.site(SITES[1]))
    day = Day(12, lambda: withdraw_approval(site, three.plan.digest(), approver="Dr South"), lambda: None, waits=0)
    settings = replace(PATIENT, cohort_wait_s=0.2, retries=RetryRules(first_wait_s=0.0, most_in_row=3))
    assert run(three, day, settings).state is RunState.KEEPS_FAILING
    assert three.journal().rounds_applied() == 12
