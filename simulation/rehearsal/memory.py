"""The largest memory of each process of a rehearsal, read from the kernel while it runs."""

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from simulation.rehearsal.cast import Cast

LOOK_EVERY_S: Final = 0.05


class PeakMemory:
    """Watches every process with a pid file, as long as the context is open.

    ``peak_mb``: process -> its largest resident memory so far, in MB of 10^6 bytes; over restarts the largest of all.
    ``own_mb``: the same without what is mapped from files, which is the code of Python and PyTorch, shared with the
    other processes of the machine: the largest that was seen, at one look every 50 ms.
    Source: proc(5), VmHWM and RssAnon in /proc/PID/status. Empty where the system has no such files.
    """

    def __init__(self, cast: Cast) -> None:
        self._folders = {"": cast.coordinator / "state"} | {
            f"{name} ": cast.site(name) / "state" for name in cast.sites
        }
        self.peak_mb: dict[str, float] = {}
        self.own_mb: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def look(self) -> None:
        """Look once at everything that runs now."""
        for owner, folder in self._folders.items():
            for pid_file in folder.glob("*.pid"):
                with contextlib.suppress(OSError, ValueError):  # it ended between two looks
                    status = Path(f"/proc/{int(pid_file.read_text(encoding='ascii'))}/status").read_text("ascii")
                    name = f"{owner}{pid_file.stem}"
                    for field, found in (("VmHWM", self.peak_mb), ("RssAnon", self.own_mb)):
                        found[name] = max(_mb(status, field), found.get(name, 0.0))

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


def _mb(status: str, field: str) -> float:
    for line in status.splitlines():
        if line.startswith(field + ":"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    raise ValueError("a process without memory of its own")
