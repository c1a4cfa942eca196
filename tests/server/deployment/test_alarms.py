"""Who is told when a study waits, goes on or ends: a program, an address of this machine, nobody else."""

import http.server
import json
import sys
import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.deployment.alarms import Alarms, tell
from server.deployment.endings import write_ending
from server.federation.alarm_settings import AlarmsSection
from server.federation.config import coordinator_config_text, read_coordinator_config
from server.federation.errors import FederationInvalidError
from server.federation.folder import FederationFolder
from server.study.events import LoggedEvents, RunState
from server.study.folder import StudyFolder, StudyLock
from server.study.live_status import LiveFile
from server.study.waiting import Missing

STUDY = "lungs"
MISSING = Missing("south", "R0.plan", 1_800_000_000.0, 104, 1_800_000_060.0)


@pytest.fixture
def folder(tmp_path):
    made = FederationFolder(tmp_path / "federation")
    made.study(STUDY).mkdir(parents=True)
    (made.study(STUDY) / "study.toml").touch()
    made.wanted(STUDY).touch()
    return made


@pytest.fixture
def program(tmp_path):
    """A program that keeps each event that it gets on its standard input, and what it kept."""
    kept = tmp_path / "events"
    kept.mkdir()
    script = tmp_path / "tell.py"
    script.write_text(
        "import sys, pathlib, uuid\npathlib.Path(sys.argv[1], uuid.uuid4().hex).write_bytes(sys.stdin.buffer.read())\n"
    )
    return f"{sys.executable} {script} {kept}", kept


def told(alarms, kept):
    """Wait until everything was told; return what the program kept."""
    alarms._queue.join()
    return sorted((json.loads(file.read_bytes()) for file in Path(kept).iterdir()), key=lambda each: each["unix_s"])


def test_a_program_is_told_that_a_study_waits_goes_on_and_ends(folder, program):
    command, kept = program
    alarms, place = Alarms(folder, AlarmsSection(on_event=command)), folder.study(STUDY)
    live = LiveFile(place, LoggedEvents())
    lock = StudyLock(StudyFolder(place))
    alarms.look(0.0)
    live.on_missing((MISSING,))
    live.on_waiting(2, 3)
    alarms.look(10.0)
    alarms.look(65.0)
    assert told(alarms, kept) == [], "nobody is told of a short wait"
    alarms.look(71.0)
    alarms.look(200.0)
    [waiting] = told(alarms, kept)
    assert (waiting["event"], waiting["study"], waiting["format"]) == ("waiting", STUDY, "fedward-event/1")
    assert [(each["site"], each["code"]) for each in waiting["for"]] == [("south", 104)]
    assert "telephone" in waiting["for"][0]["sentence"]
    live._show(doing="applied", since_unix_s=None, missing=[])
    alarms.look(201.0)
    lock.release()
    folder.wanted(STUDY).unlink()
    write_ending(place, RunState.FINISHED, "every round was applied")
    alarms.look(202.0)
    alarms.look(203.0)
    assert [each["event"] for each in told(alarms, kept)] == ["waiting", "goes_on", "ended"]
    assert told(alarms, kept)[-1]["state"] == "finished"


def test_a_wait_that_is_over_before_anybody_was_told_is_told_to_nobody(folder, program):
    command, kept = program
    alarms, place = Alarms(folder, AlarmsSection(on_event=command)), folder.study(STUDY)
    live, lock = LiveFile(place, LoggedEvents()), StudyLock(StudyFolder(place))
    alarms.look(0.0)
    live.on_waiting(2, 3)
    alarms.look(10.0)
    live._show(doing="applied", since_unix_s=None)
    alarms.look(100.0)
    assert told(alarms, kept) == []
    lock.release()


FAILING = {
    "a program that fails": (f"{sys.executable} -c raise(SystemExit(3))", "on_event ended with 3"),
    "a program that is not there": ("/nowhere/tell", r"on_event did not work \(FileNotFoundError\)"),
}


@pytest.mark.parametrize(("command", "failure"), FAILING.values(), ids=FAILING)
def test_an_alarm_that_cannot_be_told_is_no_secret(command, failure):
    found = tell(AlarmsSection(on_event=command), {"event": "waiting"})
    assert found.startswith(failure.replace("\\", ""))


class Hook(http.server.BaseHTTPRequestHandler):
    status, seen = 200, []

    def do_POST(self):
        length = int(self.headers["content-length"])
        self.seen.append((self.headers["content-type"], json.loads(self.rfile.read(length))))
        self.send_response(self.status)
        if self.status == 302:
            self.send_header("location", "http://198.51.100.1/")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("status", "failure"), [(200, ""), (500, "the webhook answered 500"), (302, "the webhook answered 302")]
)
def test_a_webhook_of_this_machine_gets_the_event_and_leads_nowhere_else(status, failure):
    handler = type("Handler", (Hook,), {"status": status, "seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = AlarmsSection(webhook=f"http://127.0.0.1:{server.server_port}/fedward")
        assert tell(settings, {"event": "ended"}) == failure
        server.shutdown()
    assert handler.seen == [("application/json", {"event": "ended"})]


REFUSED = {
    "a program without its whole path": ({"on_event": "mail root"}, "absolute path"),
    "an open quotation mark": ({"on_event": "/bin/mail 'root"}, "quotation mark"),
    "another host that nobody allowed": ({"webhook": "https://example.org/x"}, "webhook_hosts"),
    "another host without TLS": ({"webhook": "http://example.org/x", "webhook_hosts": "example.org"}, "https"),
    "another scheme": ({"webhook": "file:///etc/passwd"}, "name a host"),
    "a password": ({"webhook": "https://me:secret@example.org/", "webhook_hosts": "example.org"}, "no place for"),
    "a host that only looks allowed": (
        {"webhook": "https://example.org.evil.test/", "webhook_hosts": "example.org"},
        "evil",
    ),
    "hosts without a webhook": ({"webhook_hosts": "example.org"}, "no effect"),
    "a port that is none": ({"webhook": "http://localhost:99999999/"}, "no address"),
}


@pytest.mark.parametrize(("settings", "words"), REFUSED.values(), ids=REFUSED)
def test_alarms_that_would_go_elsewhere_or_nowhere_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        AlarmsSection(**settings)


def test_https_to_a_host_that_the_settings_name_is_allowed():
    AlarmsSection(webhook="https://example.org/x", webhook_hosts="other.test, example.org")


def test_the_settings_of_a_federation_have_alarms_and_those_of_before_open(tmp_path):
    text = coordinator_config_text("lungs", "localhost:8443", gateway_port=None, superlink_port=18000, status_port=0)
    file = tmp_path / "coordinator.toml"
    file.write_text(text)
    assert read_coordinator_config(file).alarms == AlarmsSection()
    before, _, _ = text.partition("[alarms]")
    file.write_text(before)
    assert read_coordinator_config(file).alarms == AlarmsSection()
    file.write_text(before + '[alarms]\non_event = "mail"\n')
    with pytest.raises(FederationInvalidError, match="alarms"):
        read_coordinator_config(file)
