"""Which files a folder holds, without following a link, hanging on a FIFO, or leaving the folder.

Names are bytes throughout (a folder may hold names that are no text). A name is used to open the file and to key the
index; it is never logged, stored or put in a message.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from client.dicom.limits import MAX_FILE_BYTES, MAX_FOLDER_DEPTH, MIN_FILE_BYTES
from client.dicom.reject import RejectCode, Rejected

# Below such a name there may be files, though none was found.
UNSEEN_BELOW = (RejectCode.UNREADABLE, RejectCode.TOO_DEEP, RejectCode.SYMLINK, RejectCode.NOT_REGULAR)
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A name below the folder and what the file system says about it; ``code`` is set when it is refused already.

    ``home``: the folder's own place, so that equal names below two folders are two files.
    """

    name: bytes
    state: tuple[int, int, int]  # bytes, modification time in ns, inode
    code: RejectCode | None = None
    home: bytes = b""


def walk(folder: Path) -> Iterator[FoundFile]:
    """Yield everything below ``folder``, sorted by name within each folder, so that every run sees one order.

    Links, FIFOs, sockets and devices are yielded with a code. A folder that cannot be read is one ``unreadable``.
    """
    home = os.fsencode(folder.resolve())
    for found in _walk_folder(os.fsencode(folder), b"", 0):
        yield replace(found, home=home)


def _walk_folder(root: bytes, below: bytes, depth: int) -> Iterator[FoundFile]:
    here = os.path.join(root, below) if below else root  # noqa: PTH118 (names are bytes)
    try:
        with os.scandir(here) as entries:
            listing = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield FoundFile(below, (0, 0, 0), RejectCode.UNREADABLE)
        return
    for entry in listing:
        name = below + b"/" + entry.name if below else entry.name
        try:
            state = entry.stat(follow_symlinks=False)
        except OSError:
            yield FoundFile(name, (0, 0, 0), RejectCode.UNREADABLE)
            continue
        if not stat.S_ISDIR(state.st_mode):
            yield FoundFile(name, (state.st_size, state.st_mtime_ns, state.st_ino), _first_verdict(state))
        elif depth >= MAX_FOLDER_DEPTH:
            yield FoundFile(name, (0, 0, 0), RejectCode.TOO_DEEP)
        else:
            yield from _walk_folder(root, name, depth + 1)


def unread_places(found: Iterable[FoundFile]) -> list[FoundFile]:
    """Return the folders, or what stands in their place, whose contents nobody could look at in this walk."""
    return [file for file in found if file.code in UNSEEN_BELOW]


def _first_verdict(state: os.stat_result) -> RejectCode | None:
    if stat.S_ISLNK(state.st_mode):
        return RejectCode.SYMLINK
    if not stat.S_ISREG(state.st_mode):
        return RejectCode.NOT_REGULAR
    if not MIN_FILE_BYTES <= state.st_size <= MAX_FILE_BYTES:
        return RejectCode.FILE_SIZE
    return None


def open_beneath(root: int, name: bytes) -> int:
    """Open the regular file ``name`` below the folder descriptor ``root``; each part is opened without following links.

    Guarantee: no ``..``, no absolute name, no link in any part, never blocks on a FIFO; the caller closes the result.
    Raises: Rejected (``symlink``, ``not_regular``, ``unreadable``).
    """
    parts = name.split(b"/")
    if any(part in (b"", b".", b"..") for part in parts):
        raise Rejected(RejectCode.UNREADABLE)
    folder = os.dup(root)
    try:
        for part in parts[:-1]:
            deeper = _open_part(part, FOLDER_FLAGS, folder)
            os.close(folder)
            folder = deeper
        file = _open_part(parts[-1], FILE_FLAGS, folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise Rejected(RejectCode.NOT_REGULAR)
    return file


def _open_part(part: bytes, flags: int, folder: int) -> int:
    try:
        return os.open(part, flags, dir_fd=folder)
    except OSError as error:
        links = (errno.ELOOP, errno.ENOTDIR)
        raise Rejected(RejectCode.SYMLINK if error.errno in links else RejectCode.UNREADABLE) from None


def read_whole(root: int, name: bytes, min_bytes: int = MIN_FILE_BYTES) -> bytes:
    """Read a file below ``root``; a file that changes meanwhile is refused rather than read half.

    Raises: Rejected (also ``file_size``, ``changed_while_read``).
    """
    descriptor = open_beneath(root, name)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not min_bytes <= before.st_size <= MAX_FILE_BYTES:
            raise Rejected(RejectCode.FILE_SIZE)
        try:
            content = file.read(before.st_size + 1)
        except OSError:
            raise Rejected(RejectCode.UNREADABLE) from None
        after = os.fstat(descriptor)
    if len(content) != before.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Rejected(RejectCode.CHANGED_WHILE_READ)
    return content
