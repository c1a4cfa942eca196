"""What the cache holds, as one state in memory: the sum of all committed segments.

Each segment adds entries; a later entry replaces an earlier one of the same key. Keys of files are keyed hashes of the
name, fingerprints keyed hashes of size, modification time and inode: neither name nor date is stored.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from client.dicom.record import RecordInfo

SCHEMA = 2
READABLE = (1, 2)  # 1: files without their folders, records without what tells persons apart


class FileEntry(NamedTuple):
    """What became of one source file. ``code``: why it was not taken ("" = taken).

    ``links``: of a grouped image its stack, the stack of its PatientID without issuer, then (segmentation) the names
    under which a mask may be listed; of a segmentation the stacks it was drawn on. ``folders``: short keyed names of
    the folders above it, one after the other.
    """

    file_key: str
    fingerprint: str
    code: str
    kind: str
    links: tuple[str, ...]
    record_ids: tuple[str, ...]
    folders: str = ""


STACK_LINKS = 2


class StackEntry(NamedTuple):
    """What became of one series. ``digest``: of the files it was made from; ``code``: why it was not taken.

    ``left_out``: (file key, code) of each file that is no part of the record, whether or not there is one.
    """

    stack_key: str
    digest: str
    code: str
    segmentation_code: str
    record_id: str
    duplicates: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Index:
    """All that is known about files, stacks and records.

    ``owners``: the file that gave a record; ``replaced``: segments that a rewriting left behind when it was cut off.
    """

    files: dict[str, FileEntry] = field(default_factory=dict)
    stacks: dict[str, StackEntry] = field(default_factory=dict)
    records: dict[str, RecordInfo] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    replaced: set[int] = field(default_factory=set)

    def put_file(self, entry: FileEntry) -> list[str]:
        """Note a file; return the records of its former content that are now without a source."""
        former = self.files.get(entry.file_key)
        self.files[entry.file_key] = entry
        for record_id in entry.record_ids:
            self.owners[record_id] = entry.file_key
        lost = set(former.record_ids if former else ()) - set(entry.record_ids)
        return sorted(record_id for record_id in lost if self.owners.get(record_id) == entry.file_key)

    def stack_of(self, entry: FileEntry) -> StackEntry | None:
        """Return the stack that a grouped image is part of now."""
        named = [self.stacks[key] for key in entry.links[:STACK_LINKS] if key in self.stacks]
        living = [stack for stack in named if stack.digest]
        return living[-1] if living else None

    def put_stack(self, entry: StackEntry) -> list[str]:
        """Note a series; return the record it no longer gives, if any."""
        former = self.stacks.get(entry.stack_key)
        self.stacks[entry.stack_key] = entry
        return [former.record_id] if former and former.record_id and not entry.record_id else []

    def drop(self, record_ids: Iterable[str]) -> None:
        """Forget records."""
        for record_id in record_ids:
            self.records.pop(record_id, None)
            self.owners.pop(record_id, None)

    def apply(self, content: dict[str, Any]) -> None:
        """Add one segment's entries, in the order in which they were made."""
        for row in content["files"]:
            self.put_file(FileEntry._make((*row[:4], tuple(row[4]), tuple(row[5]), *(row[6:] or [""]))))
        for row in content["stacks"]:
            left_out = tuple((str(key), str(code)) for key, code in (row[6] if len(row) > 6 else ()))
            self.put_stack(StackEntry._make((*row[:5], tuple(row[5]), left_out)))
        for row in content["records"]:
            record = RecordInfo.from_row(row)
            self.records[record.record_id] = record
        self.drop(content["dropped"])
        self.replaced.update(content["replaces"])
