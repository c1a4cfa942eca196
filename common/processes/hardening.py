"""Processes that hold keys or scans are shut: nobody attaches to them, none leaves its memory in a file, none is root.

Not dumpable (prctl(2), PR_SET_DUMPABLE): another process of the same user can neither trace it nor read its memory or
environment under /proc, and the kernel writes no core file. A program that is started anew is dumpable again, so each
of ours says it for itself; the limit of core files is inherited. Elsewhere than on Linux only that limit holds.
"""

import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import Final

from common.processes.errors import RunsAsRootError

PR_SET_DUMPABLE: Final = 4
ALLOW_ROOT: Final = "FEDWARD_ALLOW_ROOT"  # children inherit it: what was allowed to `up` is allowed to what it starts


def shut_process() -> None:
    """Let nobody look into this process from now on, and leave no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit_memory(more_bytes: int) -> None:
    """Let this process take no more than ``more_bytes`` of address space beyond what it has now: then a MemoryError.

    A limit that is there already is never raised. Elsewhere than on Linux: nothing.
    """
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + more_bytes
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def refuse_root(*, is_allowed: bool) -> None:
    """Refuse to go on as root, who could undo every fence of the service files. Raises: RunsAsRootError."""
    if os.geteuid() != 0:
        return
    if not is_allowed:
        raise RunsAsRootError(
            "this runs as root, which no part of it needs: run it as a user of its own (docs/deploy/README.md); "
            "in a container where root is nobody outside, say so with --allow-root"
        )
    os.environ[ALLOW_ROOT] = "1"


def shut_service() -> None:
    """Shut a program that runs for long, and that others start: root only where the environment says so.

    Raises: RunsAsRootError.
    """
    shut_process()
    refuse_root(is_allowed=os.environ.get(ALLOW_ROOT, "").lower() in {"1", "true", "yes", "on"})
