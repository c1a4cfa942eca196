"""An append-only file of JSON lines in which each line holds the hash of the one before it.

    hash_i = SHA-256("fedward-chain/1" 0 name 0 hash_(i-1) canonical(entry_i))

Whoever changes, removes or inserts a line breaks every hash after it; cutting lines off the end is noticed by whoever
has seen a later ``head`` (the site's signed messages, a print-out, the other person's copy). A torn last line, left by
a crash in the middle of writing, is dropped on opening: its content had not been acted on, because ``append`` returns
only after fsync.

Source: the linked time-stamps of Haber and Stornetta, J. Cryptology 1991.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common.files import parsed_json, sync_folder
from common.trust.canonical import canonical_bytes
from common.trust.errors import ChainBrokenError

MAX_LINE_BYTES: Final = 64 * 1024
START: Final = "0" * 64


@dataclass(frozen=True)
class ChainLink:
    """One line: its number from 1, what it says, and its hash (64 hexadecimal digits)."""

    number: int
    entry: dict[str, Any]
    hash: str


class HashChain:
    """The chain in one file (mode 0600), for one ``name`` (a line of one chain never fits another).

    Raises: ChainBrokenError when the file does not verify from its first line; it is then left as it is.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._name = name
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "r+b")
        if is_new:
            sync_folder(path.parent)
        self._count, self._head, self._end = 0, START, 0
        with self._locked():
            self._drop_torn_line()
            self._catch_up()

    @property
    def head(self) -> str:
        """Hash of the last line (zeros when there is none): whoever keeps it can notice a shorter file."""
        return self._head

    @property
    def count(self) -> int:
        """Number of lines."""
        return self._count

    def append(self, entry: dict[str, Any]) -> ChainLink:
        """Add one line and make it durable before returning; safe with several processes on one file.

        Raises: ValueError for values without canonical JSON or a line over ``MAX_LINE_BYTES``; OSError when the disk
        does not take it (nothing has happened then that a later opening would show as done).
        """
        with self._locked():
            self._catch_up()
            text = canonical_bytes(entry)
            link = ChainLink(self._count + 1, entry, _hash(self._name, self._head, text))
            line = b'{"entry":%b,"hash":"%b"}\n' % (text, link.hash.encode())  # canonical too: its keys are sorted
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(f"a chain line of {len(line)} bytes; the limit is {MAX_LINE_BYTES}")
            self._write(line)
            self._count, self._head, self._end = link.number, link.hash, self._end + len(line)
        return link

    def _write(self, line: bytes) -> None:
        """Put one line at the end, whole or not at all: half a line would be damage to whoever reads on."""
        descriptor = self._file.fileno()
        end = os.fstat(descriptor).st_size
        written = 0
        try:
            while written < len(line):  # a call may take a part of it; the next one says why
                written += os.pwrite(descriptor, line[written:], end + written)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise

    def links(self) -> Iterator[ChainLink]:
        """Yield every line, verified from the first. Raises: ChainBrokenError at the first that does not fit."""
        head = START
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                link = self._checked(number, head, line)
                head = link.hash
                yield link

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _locked(self) -> "_Lock":
        return _Lock(self._file.fileno())

    def _drop_torn_line(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - MAX_LINE_BYTES))
        tail = self._file.read()
        if tail and not tail.endswith(b"\n"):
            self._file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)
            os.fsync(self._file.fileno())

    def _catch_up(self) -> None:
        """Read and verify what this object has not seen yet (another process may have written)."""
        self._file.seek(self._end)
        for line in self._file:
            link = self._checked(self._count + 1, self._head, line)
            self._count, self._head, self._end = link.number, link.hash, self._end + len(line)

    def _checked(self, number: int, head: str, line: bytes) -> ChainLink:
        try:
            document = parsed_json(line[:MAX_LINE_BYTES])
            entry, claimed = document["entry"], document["hash"]
            fits = (
                isinstance(entry, dict)
                and len(document) == 2
                and claimed == _hash(self._name, head, canonical_bytes(entry))
            )
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise ChainBrokenError(
                f"{self.path}: line {number} does not fit the chain; the file was changed or damaged. "
                "Keep it as it is, and compare it with a backup"
            )
        return ChainLink(number, entry, claimed)


class _Lock:
    """Exclusive advisory lock of the open file (flock), released at the end of the block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def _hash(name: str, previous: str, entry: bytes) -> str:
    content = b"fedward-chain/1\0" + name.encode() + b"\0" + previous.encode() + entry
    return hashlib.sha256(content).hexdigest()
