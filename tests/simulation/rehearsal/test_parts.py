"""The parts a rehearsal is made of: programs that end with it, settings changed as people do, ports nobody has."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import OutputExistsError
from simulation.errors import RehearsalError
from simulation.rehearsal.background import Background
from simulation.rehearsal.cast import free_ports
from simulation.rehearsal.console import type_in
from simulation.rehearsal.performance import perform
from simulation.rehearsal.settings_files import change

STARTER = """
import sys, time
from pathlib import Path
from simulation.rehearsal import background
background.command_line = lambda program, *words: ["sleep", "1000"]
programs = background.Background(Path(sys.argv[1]))
programs.logs.mkdir()
programs.start("sleeper", "fedward-site")
print(programs.running["sleeper"].pid, flush=True)
time.sleep(1000)
"""


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_program_ends_when_the_rehearsal_is_killed(tmp_path, repository):
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path / "logs")],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    assert is_alive(pid)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    end_s = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not is_alive(pid)


def test_waiting_ends_with_the_log_of_a_program_that_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("simulation.rehearsal.background.command_line", lambda *_: [sys.executable, "-c", "exit(7)"])
    with Background(tmp_path / "logs") as programs:
        programs.start("gateway", "fedward-server")
        with pytest.raises(RehearsalError, match=r"gateway ended with 7; see .*gateway\.log"):
            programs.wait_until(lambda: False, what="never", timeout_s=30.0)


def test_a_command_that_fails_is_told_with_its_own_sentence(tmp_path):
    with pytest.raises(RehearsalError, match=r"`fedward-site join .*` ended with \d+: error: .*kit"):
        type_in("fedward-site", "join", tmp_path / "kit.json", "--site-folder", tmp_path)


CHANGES = {
    "a value, its comment kept": ("port = 1 # why\n", {"port": 2}, "port = 2 # why\n"),
    "text": ('name = "a"\n', {"name": "b"}, 'name = "b" \n'),
    "a list": ("size_px = [1, 2]\nsize = 3\n", {"size_px": [4, 4]}, "size_px = [4, 4] \nsize = 3\n"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_one_line_of_a_settings_file_changes_and_nothing_else(case, tmp_path):
    before, values, after = CHANGES[case]
    file = tmp_path / "site.toml"
    file.write_text(before)
    change(file, values)
    assert file.read_text() == after


@pytest.mark.parametrize("text", ["", "port = 1\nport = 2\n"])
def test_a_key_without_exactly_one_line_is_not_guessed(text, tmp_path):
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(RehearsalError, match="lines set port"):
        change(tmp_path / "site.toml", {"port": 3})
    assert (tmp_path / "site.toml").read_text() == text


def test_ports_are_different_and_free():
    ports = free_ports(20)
    assert len(set(ports)) == 20


def test_a_folder_in_use_or_too_deep_for_sockets_is_refused(tmp_path):
    (tmp_path / "something").touch()
    with pytest.raises((OutputExistsError, RehearsalError)):
        perform(tmp_path, sites=3, rounds=1)
    with pytest.raises(RehearsalError, match="sockets in it allow"):
        perform(Path("/tmp") / ("x" * 90), sites=3, rounds=1)
