"""Programs that stay: started, waited for, ended; none outlives the rehearsal."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from common.errors import FedwardError
from common.processes import die_with_parent
from simulation.errors import RehearsalError
from simulation.rehearsal.console import command_line, quiet_environment

POLL_S: Final = 0.2
ENDING_TIMEOUT_S: Final = 60.0


@dataclass
class Background:
    """The programs of a rehearsal that run on, by a name each. Leaving the context ends them, the last one first."""

    logs: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, program: str, *words: object) -> None:
        """Start a program; what it prints goes to a log file of its name."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*_ending_with_us(), *command_line(program, *words)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=quiet_environment(), start_new_session=True,
            )  # fmt: skip

    def wait_until(self, holds: Callable[[], bool], *, what: str, timeout_s: float) -> None:
        """Wait until something holds. Raises: RehearsalError when a program ended meanwhile, or after ``timeout_s``."""
        end_s = time.monotonic() + timeout_s
        while not _holds(holds):
            self.require_running()
            if time.monotonic() > end_s:
                raise RehearsalError(f"waited {timeout_s:g} s in vain until {what}; see {self.logs}")
            time.sleep(POLL_S)

    def require_running(self) -> None:
        """Raise RehearsalError when one of the programs has ended."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise RehearsalError(f"{name} ended with {process.returncode}; see {self.logs / name}.log")

    def end(self, name: str) -> None:
        """Ask a program to end (SIGTERM), and insist after ``ENDING_TIMEOUT_S``."""
        process = self.running.pop(name)
        process.terminate()
        try:
            process.wait(ENDING_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            process.terminate()
        for name in reversed(list(self.running)):
            self.end(name)


def _ending_with_us() -> list[str]:
    """Return what goes before a command, so that the kernel asks it to end when this process is gone, however."""
    return [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), str(int(signal.SIGTERM))]


def _holds(holds: Callable[[], bool]) -> bool:
    """While a program starts, a command that fails or a port that refuses is no failure of the rehearsal."""
    try:
        return holds()
    except (FedwardError, OSError):
        return False
