"""Keep a few processes alive: start, restart with growing pauses, log, and end them together.

    with Supervisor(children, state=folder / "state") as supervisor:
        supervisor.run()                       # until SIGTERM or SIGINT

What is covered: a child that ends for whatever reason (kill -9 included) is started again; a supervisor that is killed
takes its children along (``common.processes.die_with_parent``), and what they had started is ended by the next
supervisor of the same folder; one supervisor for a folder; logs that rotate; ``state/NAME.pid`` for scripts.
What is not: whether a child works. A child that hangs is its own health check's business.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Self

from common.processes import die_with_parent
from common.processes.failing import write_failing
from common.processes.folder_lock import hold
from common.processes.leftovers import MARK, end_leftovers
from common.processes.ports import is_free
from common.processes.room import lack_of
from common.processes.rotating_log import MAX_LOG_BYTES, OLD_FILES, RotatingLog
from common.processes.sessions import note_session

FAILURES_TO_TELL = 3  # ends in a row before a process counts as one that does not work
_WATCH_S = 0.1
_log = logging.getLogger("fedward.supervisor")


@dataclass(frozen=True, kw_only=True)
class Child:
    """One program to keep alive.

    ``command``: looked up on the PATH of ``environment``, which is the whole environment. ``log``: both outputs.
    ``ports``: host and port of each place where it listens.
    ``death_signal``: what the kernel sends the child when the supervisor is gone.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    ports: tuple[tuple[str, int], ...] = ()
    death_signal: signal.Signals = signal.SIGKILL


@dataclass(frozen=True, kw_only=True)
class Pauses:
    """How long to wait before a restart: the first time ``first_s``, then twice as long each time, up to ``most_s``.

    A child that ran for ``steady_s`` starts from ``first_s`` again. ``grace_s``: from SIGTERM to SIGKILL.
    """

    first_s: float = 0.5
    most_s: float = 10.0
    steady_s: float = 60.0
    grace_s: float = 10.0

    def before(self, restart: int) -> float:
        """Return the pause in seconds before the ``restart``-th try in a row, from 1."""
        return min(self.most_s, self.first_s * 2.0 ** min(restart - 1, 30))


class Condition(StrEnum):
    """What a child does at the moment."""

    RUNNING = "running"
    WAITING = "waiting"  # for its next start
    ENDED = "ended"  # for good


@dataclass(frozen=True)
class ChildState:
    """A child as ``states`` shows it. ``exit_status``: of the last end, negative for a signal."""

    name: str
    condition: Condition
    pid: int | None
    restarts: int
    exit_status: int | None


@dataclass
class _Kept:
    """A child with its process and its count of failures."""

    child: Child
    pid_file: Path
    log: RotatingLog
    process: subprocess.Popen[str] | None = None
    started_at: float = 0.0
    start_at: float = 0.0  # when it waits
    failures: int = 0  # in a row
    restarts: int = 0  # in all
    exit_status: int | None = None
    why: str = ""  # it keeps ending


@dataclass
class Supervisor:
    """The keeper of ``children``; ``state``: a folder for pid files and the lock, made 0700 when missing.

    Start it on the thread that stays until the end (the main thread): the kernel ends the children with that thread.
    They start in the order given and end in the opposite order. ``tick`` of ``run`` is called between two looks.

    Raises: AlreadyRunningError from ``start`` when another supervisor holds the folder.
    """

    children: Sequence[Child]
    state: Path
    pauses: Pauses = field(default_factory=Pauses)
    max_log_bytes: int = MAX_LOG_BYTES
    old_logs: int = OLD_FILES
    _kept: list[_Kept] = field(default_factory=list, init=False)
    _lock_descriptor: int = field(default=-1, init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Take the folder, end what an earlier supervisor left behind, and start every child."""
        self._lock_descriptor = hold(self.state / "supervisor.pid")
        end_leftovers(self.state, self.pauses.grace_s)
        for child in self.children:
            log = RotatingLog(child.log, max_bytes=self.max_log_bytes, old_files=self.old_logs)
            self._kept.append(_Kept(child, self.state / f"{child.name}.pid", log))
            self._launch(self._kept[-1])
        self._say_failing()

    def run(self, tick: Callable[[], None] | None = None) -> None:
        """Watch until ``request_stop``, SIGTERM or SIGINT; then return. Ends no child: ``stop`` does."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not self._stop.wait(_WATCH_S):
                self.watch()
                if tick is not None:
                    tick()
        finally:
            for number, action in before.items():
                signal.signal(number, action)

    def watch(self) -> None:
        """Look once: note children that ended, start those whose pause is over. Never blocks."""
        for kept in self._kept:
            if kept.process is not None and kept.process.poll() is not None:
                self._note_end(kept)
            elif kept.process is None and time.monotonic() >= kept.start_at:
                kept.restarts += 1
                self._launch(kept)
            elif kept.why and kept.process is not None and self._is_steady(kept):
                kept.why, kept.failures = "", 0
                self._say_failing()

    def request_stop(self) -> None:
        """Let ``run`` return. Safe from any thread and from a signal."""
        self._stop.set()

    def stop(self) -> None:
        """End the children, last one first: SIGTERM, after the grace SIGKILL, also for what they had started."""
        for kept in reversed(self._kept):
            if kept.process is not None:
                _end(kept.process, self.pauses.grace_s)
                kept.exit_status, kept.process = kept.process.returncode, None
            kept.pid_file.unlink(missing_ok=True)
            kept.start_at, kept.why = float("inf"), ""
        self._say_failing()
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    def states(self) -> list[ChildState]:
        """Return what each child does, in order."""
        return [
            ChildState(k.child.name, _condition(k), k.process.pid if k.process else None, k.restarts, k.exit_status)
            for k in self._kept
        ]

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        _log.info("%s: ending", signal.Signals(number).name)
        self.request_stop()

    def _launch(self, kept: _Kept) -> None:
        child = kept.child
        taken = [f"port {port} on {host}" for host, port in child.ports if not is_free(host, port)]
        if taken:
            self._wait(kept, f"{taken[0]} is taken by another program")
            return
        launcher = (
            sys.executable,
            "-I",
            "-S",
            die_with_parent.__file__,
            str(os.getpid()),
            str(int(child.death_signal)),
        )
        kept.process = subprocess.Popen(
            (*launcher, *child.command),
            env={**child.environment, MARK: str(self.state.resolve())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, and the group can be ended as one
        )
        kept.started_at = time.monotonic()
        with contextlib.suppress(OSError):  # a full disk must not end what works
            kept.pid_file.write_text(f"{kept.process.pid}\n")
        note_session(self.state, child.name, kept.process.pid)
        threading.Thread(target=kept.log.copy_from, args=(kept.process.stdout,), daemon=True).start()
        _log.info("%s: started, process %d", child.name, kept.process.pid)

    def _note_end(self, kept: _Kept) -> None:
        assert kept.process is not None  # noqa: S101 (for the type checker)
        _signal_group(kept.process.pid, signal.SIGKILL)  # nothing of the old one beside the new one
        kept.exit_status, kept.process = kept.process.returncode, None
        kept.pid_file.unlink(missing_ok=True)
        if self._is_steady(kept):
            kept.failures = 0
        self._wait(kept, f"ended with {kept.exit_status}, last words: {kept.log.last_line or 'none'}")

    def _is_steady(self, kept: _Kept) -> bool:
        return time.monotonic() - kept.started_at >= self.pauses.steady_s

    def _wait(self, kept: _Kept, why: str) -> None:
        """Plan the next start, and say what keeps a child from its work."""
        why = f"{lacking} ({why})" if (lacking := lack_of(self.state)) else why
        kept.failures += 1
        pause_s = self.pauses.before(kept.failures)
        kept.start_at = time.monotonic() + pause_s
        if kept.failures >= FAILURES_TO_TELL or (kept.child.ports and "is taken" in why):
            kept.why = f"{why} ({kept.failures} times in a row)"
            self._say_failing()
        _log.warning("%s: %s; again in %.1f s", kept.child.name, why, pause_s)

    def _say_failing(self) -> None:
        write_failing(self.state, {kept.child.name: kept.why for kept in self._kept if kept.why})


def _condition(kept: _Kept) -> Condition:
    if kept.process is not None:
        return Condition.RUNNING
    return Condition.WAITING if kept.start_at < float("inf") else Condition.ENDED


def _end(process: subprocess.Popen[str], grace_s: float) -> None:
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        _log.warning("process %d did not end within %.0f s and was killed", process.pid, grace_s)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left in it
        os.killpg(leader, number)
