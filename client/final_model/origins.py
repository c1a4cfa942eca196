"""Which files of a folder each record of a cache was made from, by number, and why the others were not used.

Files are numbered in the order in which the folder lists them (names in order of their bytes, folder by folder), from
1; no name is kept or shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.dicom.cache_folder import open_folder
from client.dicom.index import FileEntry, Index
from client.dicom.opt_outs import OptOuts
from client.dicom.person_decisions import load_rules
from client.dicom.reject import RejectCode
from client.dicom.segments import read_index
from client.dicom.settings import FileKind
from client.dicom.store import Store
from client.dicom.walk import FoundFile


@dataclass
class Origins:
    """``files``: record -> numbers of its files, rising; ``refused``: number of a file -> why it was not used.

    ``new``: numbers of files that the cache has not read, or that have changed since.
    """

    found: Sequence[FoundFile]
    files: dict[str, tuple[int, ...]] = field(default_factory=dict)
    refused: dict[int, RejectCode] = field(default_factory=dict)
    new: set[int] = field(default_factory=set)

    def names(self, record_id: str) -> list[bytes]:
        """Return the names of a record's files, below the folder."""
        return [self.found[number - 1].name for number in self.files[record_id]]


def trace(found: Sequence[FoundFile], cache: Path, secret: bytes) -> Origins:
    """Find out what the cache made of the files of a folder. Raises: CacheInvalidError."""
    folder = open_folder(cache, secret)
    index = read_index(folder.segments, folder.vault)
    rules = load_rules(folder.path, folder.vault)
    names = Store(Index(), None, settings=folder.settings, secret=secret, withdrawn=OptOuts(), rules=rules)
    result = Origins(found)
    for number, file in enumerate(found, start=1):
        entry = index.files.get(names.file_key(file))
        if entry is None or entry.fingerprint != names.fingerprint(file):
            result.new.add(number)
        code, records = (file.code or RejectCode.UNREADABLE, ()) if entry is None else _fate(entry, index)
        for record_id in records:
            result.files[record_id] = (*result.files.get(record_id, ()), number)
        if code is not None:
            result.refused[number] = code
    return result


def _fate(entry: FileEntry, index: Index) -> tuple[RejectCode | None, tuple[str, ...]]:
    """Return why a file was not used, or the records it is part of."""
    if entry.code:
        return RejectCode(entry.code), ()
    if not entry.links:
        return None, entry.record_ids
    if entry.kind != FileKind.IMAGE:
        return None, ()  # a segmentation made by somebody: nothing to predict on, and nothing wrong with it
    stack = index.stack_of(entry)
    if stack is None or stack.code:
        return RejectCode(stack.code) if stack else RejectCode.UNREADABLE, ()
    left_out = dict(stack.left_out).get(entry.file_key)
    if entry.file_key in stack.duplicates or left_out:
        return RejectCode(left_out) if left_out else RejectCode.DUPLICATE_INSTANCE, ()
    return None, (stack.record_id,)
