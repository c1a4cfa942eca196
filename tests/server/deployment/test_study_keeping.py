"""What the end of a study's process means: final ends take the mark away, others are followed by a new run."""

import subprocess
import threading
import time

import pytest
from flwr.proto.run_pb2 import Run
from flwr.proto.runtime_pb2 import PullTaskInputResponse

from common.flower.pointer import pointer_digest
from common.trust.hash_chain import HashChain
from server.deployment.endings import FINAL, forget_ending, read_ending, write_ending
from server.deployment.study_keeping import LONG_PAUSE_S, PAUSES, KeptStudy
from server.deployment.study_readiness import is_ready, say_ready
from server.deployment.study_task import StopSignals, _check_bundle
from server.errors import StudyFolderInvalidError
from server.federation.admission import AUDIT_NAME
from server.federation.folder import FederationFolder
from server.study.events import RunState

STUDY = "lungs"


@pytest.fixture
def folder(tmp_path):
    made = FederationFolder(tmp_path)
    made.study(STUDY).mkdir(parents=True)
    made.state.mkdir()
    made.wanted(STUDY).touch()
    return made


def ended_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return process


def study_whose_run_ended(folder, state):
    study = KeptStudy(folder, STUDY)
    study.process, study.run_id, study.started_at = ended_process(), 7, time.monotonic()
    if state is not None:
        write_ending(folder.study(STUDY), state, "so it was")
    return study


def pause_s(study):
    return study.start_at - time.monotonic()


@pytest.mark.parametrize("state", RunState)
def test_the_mark_goes_with_a_final_end_and_stays_with_any_other(folder, state):
    study = study_whose_run_ended(folder, state)
    ended = study.note_end()
    assert (ended.run_id, ended.words, study.process, study.run_id) == (7, state.value, None, None)
    assert folder.wanted(STUDY).exists() == (state not in FINAL)


def test_ends_that_nobody_can_mend_by_starting_again_are_final():
    assert {RunState.FINISHED, RunState.NO_ATTEMPT_LEFT, RunState.UNSOUND_SUMS} <= FINAL
    assert not {RunState.NO_COHORT, RunState.STOPPED, RunState.KEEPS_FAILING} & FINAL


def test_a_killed_process_is_followed_by_another_and_each_pause_is_longer_up_to_a_limit(folder):
    study, pauses = KeptStudy(folder, STUDY), []
    for _ in range(9):
        study.process, study.run_id, study.started_at = ended_process(), 7, time.monotonic()
        assert study.note_end().words == "killed"
        pauses.append(pause_s(study))
    assert pauses[0] <= PAUSES.first_s
    assert pauses[:6] == sorted(pauses[:6])
    assert PAUSES.most_s / 2 < pauses[-1] <= PAUSES.most_s
    assert folder.wanted(STUDY).exists()


def test_a_study_that_keeps_failing_rests_long_because_each_attempt_costs_privacy(folder):
    study = study_whose_run_ended(folder, RunState.KEEPS_FAILING)
    study.note_end()
    assert LONG_PAUSE_S - 5 < pause_s(study) <= LONG_PAUSE_S


def test_a_stopped_study_can_be_resumed_at_once(folder):
    study = study_whose_run_ended(folder, RunState.STOPPED)
    study.note_end()
    assert pause_s(study) <= 0


def test_the_ending_of_an_earlier_run_is_not_that_of_a_process_that_never_got_one(folder):
    study = study_whose_run_ended(folder, RunState.FINISHED)
    study.run_id = None
    assert study.note_end().words == "killed"
    assert folder.wanted(STUDY).exists()


def test_every_end_is_in_the_audit_log(folder):
    study_whose_run_ended(folder, RunState.FINISHED).note_end()
    last = list(HashChain(folder.audit, AUDIT_NAME).links())[-1].entry
    assert (last["what"], last["study"], last["run"], last["how"]) == ("run ended", STUDY, "7", "finished")


def test_nothing_starts_before_its_time_or_without_the_mark(folder):
    waiting = KeptStudy(folder, STUDY, start_at=time.monotonic() + 60)
    waiting.tend()
    folder.wanted(STUDY).unlink()
    unwanted = KeptStudy(folder, STUDY)
    unwanted.tend()
    assert (waiting.process, unwanted.process) == (None, None)


def test_a_process_that_waits_for_a_run_that_is_no_longer_wanted_is_ended(folder):
    study = KeptStudy(folder, STUDY)
    study.process = subprocess.Popen(["sleep", "60"])
    study.tend()
    assert study.process.poll() is None
    folder.wanted(STUDY).unlink()
    study.tend()
    assert study.process.wait(10) != 0


def test_only_the_process_that_said_so_is_ready(folder):
    study = KeptStudy(folder, STUDY)
    study.process = subprocess.Popen(["sleep", "60"])
    try:
        say_ready(folder, STUDY)  # this very process
        assert not study.awaits_token
        assert not is_ready(folder, "other", study.process.pid)
    finally:
        study.process.kill()
        study.process.wait()


def test_a_damaged_note_of_an_ending_is_none(folder):
    place = folder.study(STUDY)
    write_ending(place, None, "it failed")
    assert (read_ending(place).state, read_ending(place).is_final) == (None, False)
    for text in ("{", "[]", '{"state": "unheard of", "sentence": "", "unix_s": 0}'):
        (place / "ended.json").write_text(text)
        assert read_ending(place) is None
    forget_ending(place)
    forget_ending(place)
    assert read_ending(place) is None


def test_a_run_with_another_bundle_than_the_pointer_is_refused():
    _check_bundle(PullTaskInputResponse(run=Run(fab_hash=pointer_digest())))
    for digest in ("", "0" * 64):
        with pytest.raises(StudyFolderInvalidError, match="nothing of it was executed"):
            _check_bundle(PullTaskInputResponse(run=Run(fab_hash=digest)))


def test_a_study_stops_when_its_mark_is_gone_or_its_process_is_asked_to_end(folder):
    asked = threading.Event()
    stop = StopSignals(asked, folder, STUDY)
    assert not stop()
    asked.set()
    assert stop()
    asked.clear()
    folder.wanted(STUDY).unlink()
    assert stop()
