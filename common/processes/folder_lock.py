"""One process at a time on a folder: a lock that ends with the process, however it ends."""

import fcntl
import os
from pathlib import Path

from common.processes.errors import AlreadyRunningError


def hold(lock_file: Path) -> int:
    """Hold ``lock_file`` (made when missing, 0600, this process's id in it); return the descriptor that holds it.

    The lock is given back by ``os.close`` of the descriptor, or when the process ends (flock(2)).
    Raises: AlreadyRunningError when another process holds it.
    """
    lock_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyRunningError(
            f"{lock_file.parent}: already in use by another process; stop that one first"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
