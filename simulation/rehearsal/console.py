"""Typing commands as people do: one process for each, its JSON read, its failure told in one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from simulation.errors import RehearsalError

COMMAND_TIMEOUT_S: Final = 300.0
LONGEST_COMPLAINT: Final = 300
MODULES: Final = {"fedward-site": "client", "fedward-server": "server", "fedward-sim": "simulation"}


def command_line(program: str, *words: object) -> list[str]:
    """Return what starts one of our programs with this very Python, installed or not."""
    return [sys.executable, "-m", MODULES[program], *map(str, words)]


def type_in(program: str, *words: object, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run a command and return what it printed. Raises: RehearsalError with the sentence it printed."""
    said = " ".join([program, *map(str, words)])
    try:
        done = subprocess.run(
            command_line(program, *words), capture_output=True, text=True, timeout=timeout_s, check=False,
            stdin=subprocess.DEVNULL, env=quiet_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RehearsalError(f"`{said}` did not end within {timeout_s:g} s") from None
    if done.returncode != 0:
        complaint = " ".join(done.stderr.split())[-LONGEST_COMPLAINT:]
        raise RehearsalError(f"`{said}` ended with {done.returncode}: {complaint}")
    return done.stdout


def ask(program: str, *words: object, timeout_s: float = COMMAND_TIMEOUT_S) -> dict[str, Any]:
    """Run a command with ``--json`` and return its object. Raises: RehearsalError."""
    answer = json.loads(type_in(program, *words, "--json", timeout_s=timeout_s))
    if not isinstance(answer, dict):
        raise RehearsalError(f"{program} printed no JSON object")
    return answer


def quiet_environment() -> dict[str, str]:
    """Return this process's environment, with few threads: the whole cast shares one machine."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
