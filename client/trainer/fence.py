"""Start a program that cannot open this site's keys, ledger and records: ``fence.py FOLDER PROGRAM [ARGUMENT...]``.

Linux's Landlock (Documentation/userspace-api/landlock.rst): a process gives up rights for itself and all that it
starts, without privileges and for good. Here:

    of the site folder     the cache, its secret and public images may be read, teachers written; nothing else opened
    outside of it          as before: file modes decide
    network                no TCP, neither out nor in (Linux 6.7 and newer)
    other processes        none may be looked into or (6.12 and newer) signalled

Landlock has no "all but": every neighbour of each folder on the way to the site folder is allowed, the way itself is
not, so what appears there later is out of reach. On a kernel without Landlock the program starts all the same, and
``fedward-site check`` says so. Imports nothing of ours: this is a launcher, and it must be quick.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same on every processor
_PATH_BENEATH = 1
_NO_NEW_PRIVS = 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_OF_A_FILE = 1 << 1 | _READ_FILE | 1 << 14  # write, read, truncate
_ALL_BUT_EXECUTE = (1 << 13) - 2
_RENAME, _TRUNCATE = 1 << 13, 1 << 14  # kernels that know Landlock 2, 3
_TCP = 0b11  # bind, connect: Landlock 4
_SCOPES = 0b11  # abstract Unix sockets, signals: Landlock 6

READ = ("cache", "site.secret", "public")
WRITE = ("teachers",)

_libc = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """Return the version of Landlock that the kernel offers; 0 for none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, 1)))


def fence(folder: Path) -> bool:
    """Give up what the module's words say, for this process and its children; tell whether the kernel can.

    To be called before there are threads: those that exist keep their rights. Raises: OSError.
    """
    version = landlock_version()
    if version == 0:
        return False
    rights = _ALL_BUT_EXECUTE | (_RENAME if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("=QQQ", rights, _TCP, _SCOPES)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _called(_CREATE_RULESET, attributes, len(attributes), 0)
    folder = folder.resolve(strict=True)
    for path in neighbours(folder):
        _allow(ruleset, path, rights)
    for name in READ:
        _allow(ruleset, (folder / name).resolve(), _READ_FILE | _READ_DIR)  # a cache may be a link to a larger disk
    for name in WRITE:
        (folder / name).mkdir(mode=0o700, exist_ok=True)
        _allow(ruleset, folder / name, rights)
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    _called(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return True


def neighbours(folder: Path) -> Iterator[Path]:
    """Yield what lies beside ``folder`` and beside each folder above it; links are left out, their targets count."""
    for inner in (folder, *folder.parents[:-1]):
        try:
            names = os.listdir(inner.parent)  # noqa: PTH208 (pathlib would load what a launcher need not)
        except PermissionError:
            continue
        for name in names:
            path = inner.parent / name
            if name != inner.name and not path.is_symlink():
                yield path


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Allow ``rights`` on a path and below; one that is gone or out of reach stays so."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = rights if path.is_dir() else rights & _OF_A_FILE
        _called(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", allowed, descriptor), 0)
    finally:
        os.close(descriptor)


def _called(number: int, *arguments: int | bytes) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock refused call {number}")
    return result


if __name__ == "__main__":
    fence(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 (its arguments are our own)
