"""Start a program that cannot open this site's keys, ledger and records: ``fence.py FOLDER PROGRAM [ARGUMENT...]``.

Linux's Landlock and seccomp (Documentation/userspace-api/landlock.rst, seccomp_filter.rst): a process gives up rights
for itself and all that it starts, without privileges and for good. Here:

    of the site folder     caches, their secret, public images, encoders and choices of engines may be read, teachers
                           and features written; nothing else opened
    outside of it          as before: file modes decide
    sockets                none of any kind, so no network and no local service
    owner, mode of files   stay as they are (but for what is open already)
    other processes        none may be looked into or (Linux 6.12 and newer) signalled
    memory                 where it ends, this process goes first

Landlock has no "all but": every neighbour of each folder on the way to the site folder is allowed, the way itself may
only be listed, so what appears there later is out of reach, and so is a neighbour that cannot be looked at. On a kernel
without one of the two the program starts all the same; its log and ``fedward-site check`` say so. Imports nothing of
ours: this is a launcher, and it must be quick.
"""

import contextlib
import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same on every processor
_PATH_BENEATH = 1
_PR_SET_PDEATHSIG, _PR_GET_SECCOMP, _PR_SET_SECCOMP, _NO_NEW_PRIVS = 1, 21, 22, 38
_SIGKILL = 9
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_OF_A_FILE = 1 << 1 | _READ_FILE | 1 << 14  # write, read, truncate
_ALL_BUT_EXECUTE = (1 << 13) - 2
_RENAME, _TRUNCATE = 1 << 13, 1 << 14  # kernels that know Landlock 2, 3
_TCP = 0b11  # bind, connect: Landlock 4
_SCOPES = 0b11  # abstract Unix sockets, signals: Landlock 6

# What is refused: socket, io_uring_setup, chmod, fchmodat, fchmodat2, chown and its kin, setxattr and its kin. seccomp
# names calls by number: machine -> (its name for seccomp, numbers).
_REFUSED = {
    "x86_64": (0xC000003E, (41, 425, 90, 268, 452, 92, 94, 260, 188, 189)),
    "aarch64": (0xC00000B7, (198, 425, 53, 452, 54, 5, 6)),
}
_SECOND_NUMBERS = 0x40000000  # x86-64 has each call under a second number from here on

READ = ("cache", "caches", "site.secret", "public")
READ_LATER = ("engines", "encoders")  # what appears in it later can be read too, so it must be there
WRITE = ("teachers", "features")

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
    for ancestor in folder.parents:
        _allow(ruleset, ancestor, _READ_DIR)  # Python lists folders to find modules
    for path in neighbours(folder):
        _allow(ruleset, path, rights)
    with contextlib.suppress(FileExistsError):
        (folder / "caches").mkdir(mode=0o700)  # so that a cache made later can be read too
    for name in READ:
        _allow(ruleset, (folder / name).resolve(), _READ_FILE | _READ_DIR)  # a cache may be a link to a larger disk
    for name in READ_LATER:
        (folder / name).mkdir(mode=0o700, exist_ok=True)
        _allow(ruleset, folder / name, _READ_FILE | _READ_DIR)
    for name in WRITE:
        (folder / name).mkdir(mode=0o700, exist_ok=True)
        _allow(ruleset, folder / name, rights)
    _controlled(_NO_NEW_PRIVS, 1)
    _called(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return True


def can_refuse_calls() -> bool:
    """Tell whether kernel and machine are such that ``refuse_calls`` works."""
    return os.uname().machine in _REFUSED and _libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0


def refuse_calls() -> bool:
    """Have the kernel answer EPERM to the calls of ``_REFUSED``; tell whether it can. Threads and errors: ``fence``."""
    if not can_refuse_calls():
        return False
    machine, numbers = _REFUSED[os.uname().machine]
    refuse = len(numbers) + 1  # how far it is from the first comparison of a number to the refusal
    steps = [
        (0x20, 0, 0, 4),  # load the machine's name
        (0x15, 0, refuse + 2, machine),  # another: refuse
        (0x20, 0, 0, 0),  # load the call's number
        (0x35, refuse, 0, _SECOND_NUMBERS),
        *((0x15, refuse - 1 - place, 0, number) for place, number in enumerate(numbers)),
        (0x06, 0, 0, 0x7FFF0000),  # allow
        (0x06, 0, 0, 0x00050000 | errno.EPERM),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    _controlled(_NO_NEW_PRIVS, 1)
    _controlled(_PR_SET_SECCOMP, 2, program)
    return True


def neighbours(folder: Path) -> Iterator[Path]:
    """Yield what lies beside ``folder`` and beside each folder above it; links are left out, their targets count."""
    for inner in (folder, *folder.parents[:-1]):
        with contextlib.suppress(OSError), os.scandir(inner.parent) as entries:
            yield from (Path(entry.path) for entry in entries if entry.name != inner.name and not entry.is_symlink())


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Allow ``rights`` on a path and below; one that is gone or out of reach stays so."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    with contextlib.suppress(OSError):  # a dead mount, for one
        allowed = rights if stat.S_ISDIR(os.fstat(descriptor).st_mode) else rights & _OF_A_FILE
        _called(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", allowed, descriptor), 0)
    os.close(descriptor)


def _called(number: int, *arguments: int | bytes) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock refused call {number}")
    return result


def _controlled(option: int, value: int, program: bytes | int = 0) -> None:
    if _libc.prctl(option, value, program, 0, 0):
        raise OSError(ctypes.get_errno(), f"the kernel refused prctl {option}")


if __name__ == "__main__":
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if not fence(Path(sys.argv[1])):
        sys.stderr.write("this kernel has no Landlock: keys and records are not fenced off from training\n")
    if not refuse_calls():
        sys.stderr.write("no seccomp for this machine: sockets are not fenced off from training\n")
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 (its arguments are our own)
