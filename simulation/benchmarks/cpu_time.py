"""Measure CPU time fairly on a machine that others use too: interleave, repeat, keep the best."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import Progress

Clock = Callable[[], float]


def best_seconds(
    steps: Mapping[str, Callable[[], Any]], *, repeats: int, clock: Clock = time.thread_time
) -> dict[str, float]:
    """Run all ``steps`` in turn, ``repeats`` times; return the least CPU seconds of each.

    In turn, so that a busy minute of the machine hits all of them; the least, because other work only ever adds.
    ``clock`` is the CPU time of this thread, or ``time.process_time`` for steps that start threads.
    """
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(repeats):
        for name, step in steps.items():
            start_s = clock()
            result = step()
            best[name] = min(best[name], clock() - start_s)
            del result
    return best


def progress_for_people() -> Progress:
    """Return a progress bar on standard error, shown only on a terminal; it redraws between steps, never during one."""
    return Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), auto_refresh=False, transient=True)
