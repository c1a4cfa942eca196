"""End what a killed supervisor of a folder has left behind, found by its mark and by the sessions that it noted."""

import contextlib
import logging
import os
import signal
import time
from pathlib import Path
from typing import Final

from common.processes.sessions import left_in_sessions

MARK: Final = "FEDWARD_SUPERVISED"  # names the state folder in the environment of everything that a supervisor started
_LOOK_S: Final = 0.1
_log = logging.getLogger("fedward.supervisor")


def end_leftovers(state: Path, grace_s: float) -> None:
    """End what a killed supervisor of this folder has left; a SuperNode that may say goodbye can come back at once."""
    end = time.monotonic() + grace_s
    for pid in _left(state):
        _log.warning("process %d was left behind and is ended", pid)
        _signal(pid, signal.SIGTERM)
    while (left := _left(state)) and time.monotonic() < end:
        time.sleep(_LOOK_S)
    for pid in left:
        _signal(pid, signal.SIGKILL)


def _left(state: Path) -> list[int]:
    return sorted({*_marked(state), *left_in_sessions(state)} - {os.getpid()})


def _marked(state: Path) -> list[int]:
    """Return the processes with this folder's mark. The lock is ours, so nobody but a dead supervisor started them."""
    mark = f"{MARK}={state.resolve()}".encode()
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it ended, or is somebody else's
            continue
    return [pid for pid in found if pid != os.getpid()]


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
