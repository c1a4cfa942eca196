"""How a process wants a study to be run: who watches, when to stop, how patient to be. Nothing of it changes a result.

Flower calls the ServerApp with a grid and a context only; a process that wants to watch (a simulation, a status page)
leaves its wishes here under the study's folder before it starts the app.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from server.attempts.exchange import FIRST_POLL_S
from server.attempts.retries import RunSettings
from server.attempts.study_run import never
from server.study.events import LoggedEvents, RoundEvents


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Watcher, signals to stop and to go on at once, patience.

    ``first_poll_s``: the pause between two looks for answers right after something came; it grows to
    ``longest_poll_s``. Where a look is work for another process, the first pause should be no shorter than the last.
    """

    events: RoundEvents = field(default_factory=LoggedEvents)
    should_stop: Callable[[], bool] = never
    asked_to_go_on: Callable[[], bool] = never
    settings: RunSettings = field(default_factory=RunSettings)
    longest_poll_s: float = 0.2
    first_poll_s: float = FIRST_POLL_S
    hello_timeout_s: float = 30.0


_wishes: dict[Path, RunOptions] = {}
_lock = threading.Lock()


def set_options(folder: Path, options: RunOptions) -> None:
    """Use these options when the study in ``folder`` runs in this process."""
    with _lock:
        _wishes[folder.resolve()] = options


def options_for(folder: Path) -> RunOptions:
    """Return the options set for a folder, else the defaults."""
    with _lock:
        return _wishes.get(folder.resolve(), RunOptions())
