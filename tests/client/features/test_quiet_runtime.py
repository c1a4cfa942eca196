"""onnxruntime says nothing to anybody: no file is left in the home folder, and no socket is opened."""

import platform
import subprocess
import sys

import pytest

from common.flower.environment import SILENCE, child_environment

# seccomp(2) with one rule: whoever asks for a socket is ended by the kernel. Not the fence's own rule, which answers
# with an error that a library may swallow.
ENDED_BY_A_SOCKET = """
import ctypes, struct
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 41), (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("@HP", len(steps), ctypes.addressof(code)), 0, 0) == 0
"""
ENCODER_AT_WORK = """
import sys
from pathlib import Path
import numpy as np
from client.features.encoder import Encoder
from common.encoders.card import read_card
encoder = Encoder(Path(sys.argv[1]), read_card(Path(sys.argv[2])))
assert encoder.features(np.zeros((2, 3, 16, 16), np.float32), ["levels"]).shape == (2, 12)
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the rule has the call numbers of x86-64"
)


def run(program: str, home, *arguments: object, rule: str = ENDED_BY_A_SOCKET) -> int:
    environment = {name: value for name, value in child_environment(HOME=str(home)).items() if name not in SILENCE}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-c", rule + program, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120).returncode


def test_an_encoder_at_work_writes_nothing_at_home_and_opens_no_socket(encoder, tmp_path):
    assert run(ENCODER_AT_WORK, tmp_path, encoder.file, encoder.card_file) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_socket_would_have_been_noticed(tmp_path):
    assert run("import socket; socket.socket()", tmp_path) == -31  # SIGSYS


def test_the_agent_and_the_commands_do_not_load_the_runtime(tmp_path):
    program = "import sys, client.agent.agent, client.app, client.commands.approve, client.commands.up\n"
    assert run(program + "sys.exit('onnxruntime' in sys.modules)", tmp_path, rule="") == 0


def test_every_child_process_has_the_variable_that_the_runtime_reads_while_it_is_imported():
    assert child_environment()["ORT_DISABLE_TELEMETRY"] == "1"
