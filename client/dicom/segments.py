"""Segments: the unit in which a cache grows. A shard of sealed arrays and a sealed index part with the same number.

Commit: shard written, fsync, rename; then index part written, fsync, rename, fsync of the folder. The index part makes
the segment exist; a shard without one is what an interrupted run left and is removed by the next. So a kill at any
instant loses at most the segment under way, and never leaves half a record.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from client.dicom.errors import CacheInvalidError
from client.dicom.index import READABLE, SCHEMA, FileEntry, Index, StackEntry
from client.dicom.record import RecordInfo
from client.dicom.vault import Buffer, Vault
from client.processes.packing import packed, unpacked
from common.files import replace_atomically, sync_folder

COMMIT_BYTES = 64 << 20
COMMIT_FILES = 512
MAX_INDEX_BYTES = 1 << 30


def shard_path(folder: Path, number: int) -> Path:
    """Return the file of sealed arrays of a segment."""
    return folder / f"{number:08d}.shard"


def index_path(folder: Path, number: int) -> Path:
    """Return the file that makes a segment exist."""
    return folder / f"{number:08d}.index"


def committed(folder: Path) -> list[int]:
    """Return the numbers of all committed segments, rising."""
    return sorted(int(path.stem) for path in folder.glob("*.index") if path.stem.isdigit())


def read_index(folder: Path, vault: Vault, *, records_only: bool = False) -> Index:
    """Add up all committed segments; ``records_only`` leaves out what only an ingest needs.

    A segment that replaces an older one (withdrawals.py) comes later and names what it dropped, so a crash between the
    two writes needs no special care here.

    Raises: CacheInvalidError.
    """
    index = Index()
    for number in committed(folder):
        part = read_part(folder, number, vault)
        index.apply(part | {"files": [], "stacks": []} if records_only else part)
    return index


def read_part(folder: Path, number: int, vault: Vault) -> dict[str, Any]:
    """Read one segment's entries.

    Raises: CacheInvalidError.
    """
    path = index_path(folder, number)
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise CacheInvalidError(f"an index part of the cache is larger than {MAX_INDEX_BYTES} bytes; ingest again")
    part = unpacked(vault.open("index", str(number), path.read_bytes()))
    if part.get("schema") not in READABLE:
        raise CacheInvalidError(f"the cache has schema {part.get('schema')}, this program reads {SCHEMA}; ingest again")
    return part


def remove_leftovers(folder: Path) -> None:
    """Remove what an interrupted run left: half-written files, shards without index part, replaced segments."""
    numbers = set(committed(folder))
    for path in folder.iterdir():
        if path.suffix == ".shard" and path.stem.isdigit() and int(path.stem) in numbers:
            continue
        if path.suffix != ".index" or path.name.startswith("."):
            path.unlink()


def remove_segments(folder: Path, numbers: list[int]) -> None:
    """Delete segments; the index part goes first, so that none is left without its shard."""
    if not numbers:
        return
    for number in numbers:
        index_path(folder, number).unlink(missing_ok=True)
    sync_folder(folder)
    for number in numbers:
        shard_path(folder, number).unlink(missing_ok=True)


@dataclass(slots=True)
class SegmentWriter:
    """Collects entries and sealed arrays, and commits them as one segment."""

    folder: Path
    vault: Vault
    replaces: list[int] = field(default_factory=list)
    _number: int = 0
    _shard: BinaryIO | None = None
    _files: list[FileEntry] = field(default_factory=list)
    _stacks: list[StackEntry] = field(default_factory=list)
    _records: list[RecordInfo] = field(default_factory=list)
    _dropped: list[str] = field(default_factory=list)

    def place(self, kind: str, record_id: str, plaintext: Buffer) -> tuple[int, int, int]:
        """Seal an array into the shard; return (segment, offset, length).

        Raises: CacheInvalidError when the disk is full.
        """
        with _writing():
            if self._shard is None:
                self._number = max(committed(self.folder), default=0) + 1
                self._shard = self._partial().open("wb")
                os.fchmod(self._shard.fileno(), 0o600)
            sealed = self.vault.seal(kind, blob_name(self._number, record_id), plaintext)
            offset = self._shard.tell()
            self._shard.write(sealed)
        return self._number, offset, len(sealed)

    def note(self, *, file: FileEntry | None = None, stack: StackEntry | None = None, dropped: list[str]) -> None:
        """Add what became of a file or a series."""
        self._files += [file] if file else []
        self._stacks += [stack] if stack else []
        self._dropped += dropped

    def note_record(self, record: RecordInfo) -> None:
        """Add a record whose array was placed."""
        self._records.append(record)
        self._dropped = [old for old in self._dropped if old != record.record_id]

    @property
    def is_full(self) -> bool:
        """Whether it is time to commit."""
        placed = self._shard.tell() if self._shard else 0
        return placed >= COMMIT_BYTES or len(self._files) + len(self._stacks) >= COMMIT_FILES

    def commit(self) -> None:
        """Make everything since the last commit durable, all or nothing; nothing to do = nothing written.

        Raises: CacheInvalidError, FileUnreadableError when the disk is full.
        """
        if not (self._files or self._stacks or self._records or self._dropped or self.replaces):
            return
        if self._shard is not None:
            with _writing():
                self._shard.flush()
                os.fsync(self._shard.fileno())
                self._shard.close()
                self._partial().rename(shard_path(self.folder, self._number))
        else:
            self._number = max(committed(self.folder), default=0) + 1
        content = {
            "schema": SCHEMA,
            "replaces": self.replaces,
            "files": self._files,
            "stacks": self._stacks,
            "records": [record.to_row() for record in self._records],
            "dropped": self._dropped,
        }
        sealed = self.vault.seal("index", str(self._number), packed(content))
        replace_atomically(index_path(self.folder, self._number), sealed, 0o600)
        self._shard, self.replaces = None, []
        self._files, self._stacks, self._records, self._dropped = [], [], [], []

    def _partial(self) -> Path:
        return self.folder / f".{self._number:08d}.partial"


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheInvalidError(
            f"the cache cannot be written ({error.strerror}); make room, then ingest again: what was committed stays"
        ) from None


def blob_name(segment: int, record_id: str) -> str:
    """Return the name a sealed array is bound to: its segment and its record."""
    return f"{segment}/{record_id}"


def map_shard(folder: Path, number: int) -> memoryview:
    """Map a shard into memory, read only.

    Raises: CacheInvalidError when it is missing.
    """
    try:
        with shard_path(folder, number).open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):
        raise CacheInvalidError(f"shard {number} of the cache is missing or empty; ingest again") from None
