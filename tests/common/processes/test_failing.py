"""A port in use, a program that keeps ending: said once, in a sentence, and never called running."""

import errno
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time

import pytest

from common.errors import DiskFullError, PortTakenError, RightMissingError, of_system
from common.processes import room
from common.processes.failing import failing, write_failing
from common.processes.ports import first_free, is_free, require_free
from common.processes.room import lack_of
from common.processes.sessions import left_in_sessions, note_session
from common.processes.supervision import Child, Pauses, Supervisor

FAST = Pauses(first_s=0.05, most_s=0.1, steady_s=1.0, grace_s=2.0)


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def watch(supervisor, until):
    end_s = time.monotonic() + 30
    while not until():
        assert time.monotonic() < end_s
        supervisor.watch()
        time.sleep(0.02)


def test_a_taken_port_is_a_sentence_with_setting_and_file(taken):
    assert not is_free("127.0.0.1", taken)
    with pytest.raises(PortTakenError, match=rf"port {taken} on 127.0.0.1 .* another superlink_port in c.toml"):
        require_free({"superlink_port": ("127.0.0.1", taken)}, settings="c.toml")


def test_the_next_federation_on_the_machine_gets_another_port(taken):
    assert first_free("127.0.0.1", taken) > taken


def test_a_child_whose_port_is_taken_is_not_started_and_starts_when_it_is_free(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        child = Child(
            name="door", command=(sys.executable, "-c", "import time; time.sleep(60)"), environment=dict(os.environ),
            log=tmp_path / "door.log", ports=(("127.0.0.1", port),),
        )  # fmt: skip
        supervisor = Supervisor([child], tmp_path / "state", FAST)
        supervisor.start()
        try:
            assert supervisor.states()[0].pid is None
            assert f"port {port} on 127.0.0.1 is taken" in failing(tmp_path / "state")["door"]
            listener.close()
            watch(supervisor, lambda: supervisor.states()[0].pid is not None)
            watch(supervisor, lambda: failing(tmp_path / "state") == {})
        finally:
            supervisor.stop()


def test_a_child_that_keeps_ending_is_named_with_its_last_words(tmp_path):
    child = Child(
        name="agent", command=(sys.executable, "-c", "print('the disk is full'); raise SystemExit(93)"),
        environment=dict(os.environ), log=tmp_path / "agent.log",
    )  # fmt: skip
    supervisor = Supervisor([child], tmp_path / "state", FAST)
    supervisor.start()
    try:
        watch(supervisor, lambda: "agent" in failing(tmp_path / "state"))
        why = failing(tmp_path / "state")["agent"]
        assert "ended with 93" in why
        assert "the disk is full" in why
    finally:
        supervisor.stop()
    assert failing(tmp_path / "state") == {}


@pytest.mark.parametrize("content", [b"", b"[", b"[1]", b"9" * 5000, b"\xff", b'{"a": 1}', b"[" * 30_000])
def test_a_damaged_note_is_no_traceback(content, tmp_path):
    (tmp_path / "supervisor.pid").write_text(f"{os.getpid()}\n")
    (tmp_path / "failing.json").write_bytes(content)
    assert failing(tmp_path) == ({"a": "1"} if content.startswith(b"{") else {})


def test_a_note_of_a_supervisor_that_is_gone_says_nothing(tmp_path):
    write_failing(tmp_path, {"agent": "ended"})
    assert json.loads((tmp_path / "failing.json").read_bytes()) == {"agent": "ended"}
    assert failing(tmp_path) == {}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/scans/Meyer.dcm"), DiskFullError),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DiskFullError),
        (sqlite3.OperationalError("database or disk is full"), DiskFullError),
        (sqlite3.OperationalError("disk I/O error"), DiskFullError),
        (PermissionError(errno.EACCES, "Permission denied", "/scans/Meyer.dcm"), RightMissingError),
        (OSError(errno.EROFS, "Read-only file system"), RightMissingError),
        (sqlite3.OperationalError("attempt to write a readonly database"), RightMissingError),
        (sqlite3.OperationalError("unable to open database file"), RightMissingError),
        (OSError(errno.EADDRINUSE, "Address already in use"), PortTakenError),
    ],
)
def test_what_the_machine_lacks_is_a_sentence_without_a_files_name(error, kind):
    found = of_system(error)
    assert type(found) is kind
    assert "Meyer" not in str(found)


def test_another_error_is_still_a_bug():
    assert of_system(ValueError("disk is full")) is None
    assert of_system(OSError(errno.EIO, "Input/output error")) is None


def test_what_a_dead_leader_left_in_its_session_is_found_and_nothing_else(tmp_path):
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    leader = subprocess.Popen([sys.executable, "-c", script + "; input()"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
    left = int(leader.stdout.readline())
    try:
        note_session(tmp_path, "agent", leader.pid)
        assert left_in_sessions(tmp_path) == sorted([leader.pid, left])
        leader.stdin.write("\n")
        leader.stdin.flush()
        leader.wait(20)
        assert left_in_sessions(tmp_path) == [left]
        note = (tmp_path / "agent.session").read_text().split()
        (tmp_path / "agent.session").write_text(f"{note[0]} {note[1]} another-boot\n")
        assert left_in_sessions(tmp_path) == []
    finally:
        os.kill(left, 9)


def test_a_process_number_of_any_size_is_no_traceback(tmp_path):
    (tmp_path / "failing.json").write_bytes(b'{"a": "b"}')
    (tmp_path / "supervisor.pid").write_bytes(b"9" * 60)
    assert failing(tmp_path) == {}


ALMOST_FULL = shutil.disk_usage("/")._replace(free=1_000_000)


def test_a_full_disk_and_a_folder_that_may_not_be_written_are_a_sentence(tmp_path, monkeypatch):
    assert lack_of(tmp_path) == ""
    assert "cannot be looked at" in lack_of(tmp_path / "absent")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        assert "may not write" in lack_of(tmp_path)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: ALMOST_FULL)
    assert "is full (1.0 MB free)" in lack_of(tmp_path)


def test_a_child_that_ends_on_a_full_disk_is_said_to_have_no_room(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    child = Child(
        name="agent", command=(sys.executable, "-c", "raise SystemExit(1)"),
        environment=dict(os.environ), log=tmp_path / "agent.log",
    )  # fmt: skip
    supervisor = Supervisor([child], tmp_path / "state", FAST)
    supervisor.start()
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: ALMOST_FULL)
    try:
        watch(supervisor, lambda: "is full (" in caplog.text)
    finally:
        supervisor.stop()
    assert "ended with 1, last words: none" in caplog.text
