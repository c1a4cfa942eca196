"""The largest memory of each process of a rehearsal, read from the kernel while it runs."""

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from simulation.rehearsal.cast import Cast

LOOK_EVERY_S: Final = 0.5


class PeakMemory:
    """Watches every process with a pid file, as long as the context is open.

    ``peak_mb``: process -> its largest resident memory so far, in MB of 10^6 bytes; over restarts the largest of all.
    Source: proc(5), VmHWM in /proc/PID/status. Empty where the system has no such files.
    """

    def __init__(self, cast: Cast) -> None:
        self._folders = {"": cast.coordinator / "state"} | {
            f"{name} ": cast.site(name) / "state" for name in cast.sites
        }
        self.peak_mb: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def look(self) -> None:
        """Look once at everything that runs now."""
        for owner, folder in self._folders.items():
            for pid_file in folder.glob("*.pid"):
                with contextlib.suppress(OSError, ValueError):  # it ended between two looks
                    peak_mb = _peak_mb(int(pid_file.read_text(encoding="ascii")))
                    name = f"{owner}{pid_file.stem}"
                    self.peak_mb[name] = max(peak_mb, self.peak_mb.get(name, 0.0))

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            self.look()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()


def _peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    raise ValueError("a process without memory of its own")
