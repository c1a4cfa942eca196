"""Which processes belong to a supervisor that is dead: by the session that each of its children led.

A process that is not dumpable hides its environment even from its own user, so a mark there is not enough. A session's
number is not given to anybody else while one of its processes lives; start time and boot tell a later holder of the
number apart. Source: proc(5), /proc/PID/stat, fields 6 and 22; setsid(2).
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

from common.errors import FedwardError
from common.files import read_bounded

SUFFIX: Final = ".session"
_PROC = Path("/proc")
_BOOT = _PROC / "sys/kernel/random/boot_id"
_SESSION, _START = 6, 22  # fields of stat, counted from 1


def note_session(state: Path, name: str, leader: int) -> None:
    """Write down which session a child leads. A full disk is no reason to end what works."""
    with suppress(OSError):
        (state / f"{name}{SUFFIX}").write_text(f"{leader} {_field(leader, _START)} {_boot()}\n")


def left_in_sessions(state: Path) -> list[int]:
    """Return the living processes of the sessions noted in ``state``; whoever asks holds the folder's lock."""
    ours = {leader for file in state.glob(f"*{SUFFIX}") if (leader := _leader(file)) is not None}
    if not ours:
        return []
    numbers = [int(folder.name) for folder in _PROC.glob("[0-9]*")]
    return [number for number in numbers if _field(number, _SESSION) in ours]


def _leader(file: Path) -> str | None:
    """Return the number of a session whose leader is the one noted, or is dead since."""
    try:
        leader, start, boot = read_bounded(file, 200).decode("ascii").split()
    except (FedwardError, ValueError):
        return None
    now = _field(int(leader), _START) if leader.isdecimal() else ""
    return leader if boot == _boot() and now in {"", start} else None


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return "unknown"


def _field(process: int, number: int) -> str:
    """Return a field of a process's stat; empty where it has ended."""
    try:
        stat = (_PROC / str(process) / "stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[number - 3]  # the second field may hold spaces
