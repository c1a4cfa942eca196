"""Kill -9, one process at a time, at a moment that chance chooses; then wait until the study has moved on by itself."""

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.secagg.stages import Kind
from server.study.folder import Study, open_study
from server.study.live_status import LiveStatus, read_live_status
from server.study.status import read_journal
from simulation.errors import RehearsalError
from simulation.rehearsal.cast import STUDY, Cast

LOOK_EVERY_S: Final = 0.02
MOMENT_TIMEOUT_S: Final = 180.0
RECOVERY_TIMEOUT_S: Final = 300.0
# Where a process may die: while a message of this kind is out. RESULT comes after the model has moved.
MOMENTS: Final = (Kind.ORDER, Kind.KEYLIST, Kind.FORWARD, Kind.SURVIVORS, Kind.CERTIFICATE, Kind.RESULT)


@dataclass(frozen=True)
class Victim:
    """A process to kill: its words, and the file that holds its number."""

    name: str
    pid_file: Callable[[Cast], Path]


VICTIMS: Final = (
    Victim("SuperLink", lambda cast: cast.coordinator / "state" / "superlink.pid"),
    Victim("gateway", lambda cast: cast.coordinator / "state" / "gateway.pid"),
    Victim("ServerApp", lambda cast: cast.coordinator / "state" / f"study-{STUDY}.pid"),
    Victim("SuperNode", lambda cast: cast.site(cast.sites[-1]) / "state" / "supernode.pid"),
    Victim("agent", lambda cast: cast.site(cast.sites[0]) / "state" / "agent.pid"),
    Victim("trainer", lambda cast: cast.site(cast.sites[1]) / "state" / "trainer.pid"),
)


@dataclass(frozen=True)
class Kill:
    """What was done. ``recovered_s``: until a round was applied that began before the kill or after it."""

    victim: str
    during: str
    attempt: int
    rounds_before: int
    recovered_s: float


def kill_one_after_the_other(cast: Cast, alive: Callable[[], None]) -> list[Kill]:
    """Kill each victim once and wait each time until another round is applied. ``alive`` raises when all is lost.

    Raises: RehearsalError when a moment does not come or the study does not move on.
    """
    study = open_study(cast.study)
    return [_kill(cast, study, victim, alive) for victim in VICTIMS]


def _kill(cast: Cast, study: Study, victim: Victim, alive: Callable[[], None]) -> Kill:
    """Wait for a new attempt and a stage of it, kill, and wait for the next applied round."""
    kind = secrets.choice(MOMENTS)
    known = _live(cast).attempt or 0
    for _ in _until(MOMENT_TIMEOUT_S, f"a moment to kill the {victim.name}", alive):
        live = _live(cast)
        if (live.attempt or 0) > known and live.asked == str(kind):
            break
    before = _rounds_applied(study)
    os.kill(int(victim.pid_file(cast).read_text(encoding="ascii")), signal.SIGKILL)
    began_s = time.monotonic()
    for _ in _until(RECOVERY_TIMEOUT_S, f"the study goes on after the {victim.name} was killed", alive):
        if _rounds_applied(study) > before:
            break
    return Kill(victim.name, str(kind), live.attempt or 0, before, round(time.monotonic() - began_s, 1))


def _until(timeout_s: float, what: str, alive: Callable[[], None]) -> Iterator[None]:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        yield
        alive()
        time.sleep(LOOK_EVERY_S)
    raise RehearsalError(f"waited {timeout_s:g} s in vain for: {what}")


def _live(cast: Cast) -> LiveStatus:
    return read_live_status(cast.study) or LiveStatus()


def _rounds_applied(study: Study) -> int:
    journal = read_journal(study)
    if journal is None:
        return 0
    try:
        return journal.rounds_applied()
    finally:
        journal.close()
