"""What `status` says of a study that does not go on: for hospitals, or for this very machine."""

import json
import os

import pytest

from server.deployment import federation_status
from server.deployment.federation_status import keeping
from server.deployment.going_on import GoOnSignal, say_go_on
from server.federation.folder import FederationFolder
from server.study.events import LoggedEvents
from server.study.folder import StudyFolder, StudyLock
from server.study.live_status import LiveFile
from server.study.waiting import Missing

SOUTH = Missing("south", "R0.plan", 1_800_000_000.0, 104, 1_800_000_060.0)


@pytest.fixture
def folder(tmp_path):
    made = FederationFolder(tmp_path)
    made.study("lungs").mkdir(parents=True)
    made.state.mkdir()
    (made.state / "executor.pid").write_text(str(os.getpid()))
    return made


def note(folder, away_since):
    facts = {"online": {}, "superlink_away_since_unix_s": away_since, "studies": {}}
    (folder.state / "executor.json").write_text(json.dumps(facts))


def test_a_study_that_runs_waits_for_hospitals(folder):
    place = folder.study("lungs")
    live, lock = LiveFile(place, LoggedEvents()), StudyLock(StudyFolder(place))
    live.on_missing((SOUTH,))
    live.on_waiting(2, 3)
    facts = keeping(place)
    assert facts["state"] == "waiting"
    assert facts["waiting"]["for"][0]["sentence"] == SOUTH.sentence
    lock.release()
    assert keeping(place)["waiting"] is None, "nothing runs that could wait"


def test_a_study_that_is_wanted_waits_for_a_superlink_that_is_away(folder):
    place = folder.study("lungs")
    note(folder, 1e9)
    assert keeping(place)["waiting"] is None, "nobody wants it to run"
    folder.wanted("lungs").touch()
    waiting = keeping(place)["waiting"]
    assert (waiting["since_unix_s"], waiting["for"][0]["why"]) == (1e9, "this machine")
    assert "SuperLink does not answer" in waiting["for"][0]["sentence"]
    note(folder, None)
    assert keeping(place)["waiting"] is None


def test_a_study_that_is_wanted_waits_for_room_on_the_disk(folder, monkeypatch):
    folder.wanted("lungs").touch()
    monkeypatch.setattr(federation_status, "lack_of", lambda _place: "the disk is full: nothing is lost")
    assert keeping(folder.study("lungs"))["waiting"]["for"][0]["sentence"] == "the disk is full: nothing is lost"


def test_go_on_is_heard_once_and_only_by_who_listened_before(folder):
    place = folder.study("lungs")
    say_go_on(place)
    signal = GoOnSignal(place)
    assert not signal()
    say_go_on(place)
    assert [signal(), signal()] == [True, False]
