"""How much memory this machine has for a process: by the kernel's word and the limits of its control groups."""

import contextlib
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_GROUPS: Final = Path("/sys/fs/cgroup")


def memory_bytes(*, proc: Path = _PROC, groups: Path = _GROUPS) -> int | None:
    """Return all memory that a process here may have; None where the system does not say.

    ``proc``, ``groups``: where the kernel's files are mounted.
    """
    found = [_meminfo(proc, "MemTotal"), *(limit for limit, _ in _limits(proc, groups))]
    return min((each for each in found if each is not None), default=None)


def free_bytes(*, proc: Path = _PROC, groups: Path = _GROUPS) -> int | None:
    """Return the memory that is free at the moment, or could be made so without swapping."""
    found = [_meminfo(proc, "MemAvailable"), *(max(0, limit - used) for limit, used in _limits(proc, groups))]
    return min((each for each in found if each is not None), default=None)


def _meminfo(proc: Path, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / "meminfo").read_text("ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def _limits(proc: Path, groups: Path) -> list[tuple[int, int]]:
    """Return (limit, used) of this process's control group and of those above it; version 1 where there is no 2."""
    found = []
    for path, limit, used in _group_folders(proc, groups):
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            found.append((int((path / limit).read_text("ascii")), int((path / used).read_text("ascii"))))
    return found


def _group_folders(proc: Path, groups: Path) -> list[tuple[Path, str, str]]:
    """Return each folder of a group that may have a limit, with the names of its files."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / "self" / "cgroup").read_text("utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            second = controllers == ""
            if not second and "memory" not in controllers.split(","):
                continue
            root = groups if second else groups / "memory"
            names = ("memory.max", "memory.current") if second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
            own = root / name.lstrip("/")
            found += [(path, *names) for path in (own, *own.parents) if path == root or root in path.parents]
    return found
