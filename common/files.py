"""Reading and writing files that others may have prepared: bounded, regular, never through a link where it matters."""

import errno
import json
import os
import stat
import tempfile
import tomllib
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import Any

from common.errors import (
    DiskFullError,
    FileTooLargeError,
    FileUnreadableError,
    NotUtf8Error,
    OutputExistsError,
    RightMissingError,
)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most ``max_bytes``; the size is checked before anything is read.

    A FIFO, a device or a folder is refused (opening a FIFO would hang). Reading goes one byte past the limit, so a
    file that grows meanwhile is noticed.

    Raises: FileUnreadableError, FileTooLargeError.
    """
    with open_bounded(path, max_bytes) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise FileTooLargeError(f"{path}: grew past {max_bytes} bytes while it was read; try again when it is complete")
    return content


def open_bounded(path: Path, max_bytes: int) -> BufferedReader:
    """Open a regular file of at most ``max_bytes`` for reading; nothing is read yet.

    Raises: FileUnreadableError, FileTooLargeError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FileUnreadableError(
            f"{path}: cannot be opened ({error.strerror}); check the name and its rights"
        ) from None
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        os.close(descriptor)
        raise FileUnreadableError(f"{path}: not a regular file; give the name of a file")
    if state.st_size > max_bytes:
        os.close(descriptor)
        raise FileTooLargeError(f"{path}: {state.st_size} bytes, the limit is {max_bytes}; is it the right file?")
    return os.fdopen(descriptor, "rb")


def read_text(path: Path, max_bytes: int) -> str:
    """Read a bounded UTF-8 text file (a byte order mark is dropped).

    Raises: NotUtf8Error with the offset of the first bad byte, and those of ``read_bounded``.
    """
    content = read_bounded(path, max_bytes)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotUtf8Error(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None


MOST_DOTS = 256  # of one line of a TOML file


def toml_document(text: str) -> dict[str, Any]:
    """Return the document of a TOML text, in bounded time and memory.

    A key of thousands of dotted parts takes their square in both, so a line with more than ``MOST_DOTS`` dots is none.
    Raises: ValueError, RecursionError.
    """
    most = max((line.count(".") for line in text.splitlines()), default=0)
    if most > MOST_DOTS:
        raise ValueError(f"a line has {most} dots, the limit is {MOST_DOTS}")
    return tomllib.loads(text)


def parsed_json(content: bytes | bytearray | str) -> Any:
    """Return what a JSON text says, as plain values.

    ``json`` alone raises RecursionError for text that nests deeply, which nobody thinks of: here it is one error.
    Raises: ValueError for whatever is no JSON text, and for one that nests too deeply.
    """
    try:
        return json.loads(content)  # noqa: TID251 (the one place)
    except RecursionError:
        raise ValueError("the text nests too deeply") from None


def write_new(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Create ``path`` with ``content`` and exactly ``mode``; an existing file is left alone.

    Raises: OutputExistsError, FileUnreadableError when the folder cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise OutputExistsError(f"{path}: exists already and was left alone; choose another name") from None
    except OSError as error:
        raise _not_written(path, error, "check the folder") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key would be taken for one
        raise _not_written(path, error, "check the folder and its space") from None


def replace_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write ``content`` beside ``path``, make it durable, rename it over ``path``: readers see old or new, never half.

    Raises: FileUnreadableError when the folder cannot be written.
    """
    write_atomically(path, [content], mode)


def write_atomically(path: Path, pieces: Iterable[bytes | memoryview], mode: int = 0o644) -> None:
    """Write ``pieces`` one after the other as ``replace_atomically`` writes a content; only one is in memory at a time.

    What making a piece raises goes through, and ``path`` stays as it was.
    Raises: FileUnreadableError when the folder cannot be written.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise _not_written(path, error, "check folder and space") from None


def _not_written(path: Path, error: OSError, advice: str) -> FileUnreadableError:
    """Return the error of a file that could not be written: no space and no right have exit codes of their own."""
    kind = {
        errno.ENOSPC: DiskFullError,
        errno.EDQUOT: DiskFullError,
        errno.EACCES: RightMissingError,
        errno.EPERM: RightMissingError,
        errno.EROFS: RightMissingError,
    }.get(error.errno or 0, FileUnreadableError)
    return kind(f"{path}: cannot be written ({error.strerror}); {advice}")


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in ``folder`` durable (POSIX: fsync of the directory)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
