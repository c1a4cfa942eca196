"""Keeping one study running: when a run of it starts, what its end means, and how long to wait before the next."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.processes import die_with_parent
from common.processes.supervision import Pauses
from server.deployment.endings import Ending, read_ending
from server.deployment.study_readiness import is_ready
from server.federation.admission import audit
from server.federation.folder import FederationFolder
from server.study.events import RunState

PAUSES: Final = Pauses(first_s=1.0, most_s=60.0, steady_s=120.0)
LONG_PAUSE_S: Final = 600.0  # after attempt upon attempt failed: each costs privacy, and the cause lasts
# glibc (others ignore it) keeps this much of what was freed: a study's process trains nothing, so it needs no stock
KEEP_LITTLE: Final = {"MALLOC_TRIM_THRESHOLD_": str(1 << 20)}

_log = logging.getLogger("fedward.executor")


@dataclass(frozen=True)
class Ended:
    """The end of a process: of which run (None: it had none yet), and what it left behind (None: it was killed)."""

    run_id: int | None
    ending: Ending | None

    @property
    def words(self) -> str:
        """The end in a word, for logs."""
        if self.ending is None:
            return "killed"
        return self.ending.state.value if self.ending.state else "failed"


@dataclass
class KeptStudy:
    """A study that is kept running while it is wanted. ``run_id``: of the Flower run under way.

    Times are monotonic; ``start_at``: not before.
    """

    folder: FederationFolder
    name: str
    pauses: Pauses = PAUSES
    process: subprocess.Popen[bytes] | None = None
    run_id: int | None = None
    start_at: float = 0.0
    started_at: float = 0.0
    failures: int = 0  # in a row
    starts: int = 0  # in all

    @property
    def is_wanted(self) -> bool:
        """Whether the study is to run."""
        return self.folder.wanted(self.name).exists()

    @property
    def awaits_token(self) -> bool:
        """Whether its process has loaded everything, and has no run yet."""
        waits = self.process is not None and self.run_id is None
        return waits and self.process is not None and is_ready(self.folder, self.name, self.process.pid)

    def tend(self) -> None:
        """Start a process for a wanted study, when it is time; end one that waits for a run that is not wanted."""
        if self.process is None and self.is_wanted and time.monotonic() >= self.start_at:
            self._launch()
        elif self.process is not None and self.run_id is None and not self.is_wanted:
            self.end()

    def begin(self, run_id: int, token: str) -> None:
        """Hand the token of a run to the process that awaits it. Raises: OSError where that cannot be written down."""
        if self.process is None or self.process.stdin is None:
            raise RuntimeError("a token for a study without a process")
        audit(self.folder, "run started", study=self.name, run=str(run_id))
        self.run_id = run_id
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stream:  # it ended: the next look notes that
            stream.write(f"{token}\n".encode())
        _log.info("%s: run %d begins", self.name, run_id)

    def note_end(self) -> Ended | None:
        """Note that the process has ended; None while it goes on, or where there is none."""
        if self.process is None or self.process.poll() is None:
            return None
        ended = Ended(self.run_id, read_ending(self.folder.study(self.name)) if self.run_id is not None else None)
        _log.info("%s: process ended with %d, %s", self.name, self.process.returncode, ended.words)
        audit(self.folder, "run ended", study=self.name, run=str(self.run_id), how=ended.words)
        self._pid_file.unlink(missing_ok=True)
        self.process, self.run_id = None, None
        if ended.ending and ended.ending.is_final:
            self.folder.wanted(self.name).unlink(missing_ok=True)
        self._plan_next(ended.ending)
        return ended

    def end(self) -> None:
        """Ask the process to end; it does between two attempts, or at once when it has no run."""
        if self.process is not None:
            self.process.terminate()

    def _launch(self) -> None:
        command = (sys.executable, "-m", "server.deployment.study_process", str(self.folder.path), self.name)
        self.process = subprocess.Popen(
            _tied_to_this_process(command), stdin=subprocess.PIPE, env={**os.environ, **KEEP_LITTLE}
        )
        self.started_at, self.starts = time.monotonic(), self.starts + 1
        with contextlib.suppress(OSError):  # a full disk must not end what works
            self._pid_file.write_text(f"{self.process.pid}\n")
        _log.info("%s: process %d", self.name, self.process.pid)

    def _plan_next(self, ending: Ending | None) -> None:
        steady = time.monotonic() - self.started_at >= self.pauses.steady_s
        self.failures = 1 if steady else self.failures + 1
        pause_s = self.pauses.before(self.failures)
        if ending and ending.state is RunState.KEEPS_FAILING:
            pause_s = LONG_PAUSE_S
        if ending and ending.state is RunState.STOPPED:
            pause_s, self.failures = 0.0, 0
        self.start_at = time.monotonic() + pause_s

    @property
    def _pid_file(self) -> Path:
        return self.folder.state / f"study-{self.name}.pid"


def _tied_to_this_process(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return what starts ``command`` so that it ends with this process, SIGKILL included."""
    parent, number = str(os.getpid()), str(int(signal.SIGKILL))
    return (sys.executable, "-I", "-S", die_with_parent.__file__, parent, number, *command)
