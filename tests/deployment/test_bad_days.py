"""Bad days of a deployment of real processes: hospitals wedged, the SuperLink away; a study waits, says so, ends well.

Clocks are shortened: seconds stand for the minutes of the issue. A full disk is in ``test_full_disk``.
"""

import json
import os
import signal
import time

import pytest

from client.consent.approval import approve, withdraw_approval
from client.ledger.ledger import Ledger
from server.model.checkpoint import same_state
from server.study.folder import open_study
from server.study.progress import current_state, replay
from server.study.status import read_journal

from .conftest import STUDY, build, processes_below, wait_until

pytestmark = pytest.mark.slow
FOUR = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
ROUNDS = 12
WEDGED_S = 20.0
AWAY_S = 75.0  # longer than Flower lets a run go on without a word
WAITING = ("training_timeout_s = 180.0\nstage_timeout_s = 120.0", "training_timeout_s = 30.0\nstage_timeout_s = 20.0")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four hospitals, of whom three are needed, and a study of many rounds that runs."""
    made = build(tmp_path_factory.mktemp("d"), FOUR)
    try:
        made.start_coordinator()
        made.sign_study(STUDY, ROUNDS, changes=WAITING)
        made.hospitals = {name: made.start_site(name) for name in made.sites}
        made.command("run", STUDY)
        made.wait_for_rounds(2)
        yield made
    finally:
        for program in getattr(made, "hospitals", {}).values():
            send([program], signal.SIGCONT)
        made.end()


def facts(made):
    return json.loads(made.command("status", STUDY, "--json"))


def send(programs, number):
    for program in programs:
        for pid in [program.pid, *processes_below(program.pid)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def waits_for(made, *sites, why=()):
    """Tell whether status says `waiting`, for these hospitals, for one of these reasons."""
    now = facts(made)
    return now["state"] == "waiting" and {each["site"] for each in now["waiting"]["for"] if each["why"] in why} >= set(
        sites
    )


def test_two_of_four_that_are_wedged_are_named_and_cost_no_attempt(made):
    wedged = [made.hospitals[name] for name in FOUR[:2]]
    send(wedged, signal.SIGSTOP)
    try:
        # what is wedged is silent first, and offline once the SuperLink has not heard of its node for a while
        unheard = ("silent", "failed", "offline")
        wait_until(lambda: waits_for(made, *FOUR[:2], why=unheard), "status names both")
        time.sleep(WEDGED_S)
        before = facts(made)
        assert before["state"] == "waiting"
        assert "2 of at least 3 hospitals can be asked" in made.command("status", STUDY)
    finally:
        send(wedged, signal.SIGCONT)
    made.wait_for_rounds(before["rounds_applied"] + 2)
    lost = made.status()["attempts"] - made.status()["rounds_applied"]
    assert lost <= 1, "the attempt in which they were wedged may have been masked; none after it"


def test_hospitals_that_withdraw_are_waited_for_and_go_on_asks_at_once(made):
    opened = open_study(made.folder.study(STUDY))
    for name in FOUR[:2]:
        withdraw_approval(made.sites[name], opened.plan.digest(), approver="Data Protection Officer")
    wait_until(lambda: waits_for(made, *FOUR[:2], why=["R0.plan"]), "status names both")
    assert "refuses with code 104" in made.command("status", STUDY)
    before = made.status()
    for name in FOUR[:2]:
        approve(made.sites[name], made.folder.study(STUDY) / "study.toml", approver="Data Protection Officer")
    made.command("study", "go-on", STUDY)
    made.wait_for_rounds(before["rounds_applied"] + 2)
    assert made.status()["attempts"] - before["attempts"] == made.status()["rounds_applied"] - before["rounds_applied"]


def test_while_the_superlink_does_not_answer_the_study_waits_and_then_goes_on(made):
    before, superlink = made.status()["rounds_applied"], made.process("superlink")
    os.kill(superlink, signal.SIGSTOP)
    try:
        wait_until(lambda: waits_for(made, "", why=["this machine"]), "status says that the SuperLink is away")
        assert "the SuperLink does not answer" in made.command("status", STUDY)
        time.sleep(AWAY_S)
    finally:
        os.kill(superlink, signal.SIGCONT)
    made.wait_for_rounds(before + 3)
    assert not waits_for(made, "", why=["this machine"])


def test_in_the_end_the_study_kept_its_promise_and_its_sums_lead_to_the_model(made):
    made.command("run", STUDY, "--wait")
    assert made.status()["rounds_applied"] >= ROUNDS
    study = open_study(made.folder.study(STUDY))
    journal = read_journal(study)
    assert same_state(replay(study, journal), current_state(study, journal))
    for name in FOUR:
        ledger = Ledger.open(made.sites[name].ledger, ceiling=100.0)
        assert all(each.beyond_promise() is None for each in ledger.spending())
        ledger.close()
