"""Peak memory of one call, measured in a fork of its own (Linux)."""

import os
from collections.abc import Callable
from pathlib import Path


def peak_mb(make: Callable[[], Callable[[], object]]) -> float:
    """Return how many MB (10^6 bytes) ``make()()`` needs at most beyond what the process holds before.

    The first call, which may choose between ways, is made before the measurement and counts only by what it keeps.
    Raises: OSError where there is no /proc; RuntimeError if the call failed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            before = _status_kb("VmRSS")
            step = make()
            step()
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
            step()
            os.write(writing, str(_status_kb("VmHWM") - before).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError("the step failed in the process that measures its memory")
    return round(int(text) * 1024 / 1e6, 1)


def _status_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))
