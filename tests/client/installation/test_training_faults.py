"""Trainings that failed: what is kept for the staff, how much of it, and what `fedward-site check` makes of it."""

import json
import logging
import time

import pytest

from client.doctor.data import FAULTS_DAYS, trainings
from client.doctor.findings import Level
from client.installation.training_faults import FILE, KEPT, MAX_BYTES, note_fault, training_faults

PLAN = "ab" * 32
PLACE = "RuntimeError at client/learning/training.py:88"


def test_a_fault_is_kept_with_its_study_round_and_place_and_nothing_else(north):
    before = int(time.time())
    note_fault(north, plan=PLAN, round_number=7, fault=PLACE)
    [fault] = training_faults(north)
    assert (fault.plan, fault.round_number, fault.fault) == (PLAN, 7, PLACE)
    assert before <= fault.time_s <= time.time()
    file = north.state / FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert [sorted(each) for each in json.loads(file.read_bytes())] == [["fault", "plan", "round_number", "time_s"]]


def test_only_the_last_ones_are_kept_oldest_first_and_they_always_fit(north):
    for number in range(KEPT + 3):
        note_fault(north, plan=PLAN, round_number=number, fault="x" * 200)
    assert [each.round_number for each in training_faults(north)] == list(range(3, KEPT + 3))
    assert (north.state / FILE).stat().st_size < MAX_BYTES


DAMAGED = {
    "empty": b"",
    "no JSON": b"\x00\xff",
    "an object": b"{}",
    "entries of another form": b'[{"time_s": 1}]',
    "entries that are no objects": b"[1]",
    "a time that is text": b'[{"time_s": "now", "plan": "", "round_number": 1, "fault": ""}]',
    "a round that is text": b'[{"time_s": 1, "plan": "", "round_number": "1", "fault": ""}]',
    "a plan that is a list": b'[{"time_s": 1, "plan": [], "round_number": 1, "fault": ""}]',
    "a terminal's control characters": b'[{"time_s": 1, "plan": "", "round_number": 1, "fault": "\\u001b[2J"}]',
    "longer than it can be": b" " * (MAX_BYTES + 1),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_no_fault_stops_nothing_and_is_written_anew(case, north):
    north.state.mkdir(mode=0o700, exist_ok=True)
    (north.state / FILE).write_bytes(DAMAGED[case])
    assert training_faults(north) == []
    assert trainings(north).level is Level.OK
    note_fault(north, plan=PLAN, round_number=1, fault=PLACE)
    assert len(training_faults(north)) == 1


def test_a_fault_that_cannot_be_written_down_is_still_in_the_log_and_stops_nothing(north, caplog):
    north.state.write_bytes(b"no folder")
    with caplog.at_level(logging.ERROR, logger="fedward.site"):
        note_fault(north, plan=PLAN, round_number=1, fault=PLACE)
    assert PLACE in caplog.text
    assert "cannot be written" in caplog.text


def test_check_advises_on_the_last_fault_and_forgets_it_after_a_while(north, monkeypatch):
    assert (trainings(north).level, trainings(north).name) == (Level.OK, "trainings")
    note_fault(north, plan=PLAN, round_number=6, fault="MemoryError at a:1")
    note_fault(north, plan=PLAN, round_number=7, fault=PLACE)
    finding = trainings(north)
    assert finding.level is Level.ADVICE
    assert finding.text.startswith("2 failed in 30 days and were answered with noise alone")
    assert f"round 7 of plan {PLAN[:12]}: {PLACE}" in finding.text
    assert "spends budget" in finding.remedy
    later_s = time.time() + (FAULTS_DAYS + 1) * 86_400
    monkeypatch.setattr("client.doctor.data.time.time", lambda: later_s)
    assert trainings(north).level is Level.OK
