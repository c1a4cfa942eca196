"""What an ingest decided about each single file: reports hold counts only, tests and trials need more."""

import os
from pathlib import Path

from client.dicom.cache_folder import open_folder
from client.dicom.index import FileEntry, Index
from client.dicom.opt_outs import OptOuts
from client.dicom.reject import RejectCode
from client.dicom.segments import read_index
from client.dicom.settings import FileKind
from client.dicom.store import Store
from client.dicom.walk import walk
from simulation.hostile.case import ACCEPTED

NOT_READ = "not_read"


def verdicts(source: Path, cache: Path, secret: bytes) -> dict[str, str]:
    """Return the verdict on each file below ``source`` by its relative name: a code, "accepted", or "not_read".

    Needs the site secret, because the cache knows files by keyed names only.
    """
    folder = open_folder(cache, secret)
    index = read_index(folder.segments, folder.vault)
    store = Store(index, None, settings=folder.settings, secret=secret, withdrawn=OptOuts())
    found = {}
    for file in walk(source):
        entry = store.known(file)
        code = (file.code or NOT_READ) if entry is None else entry.code or verdict_of_stacks(entry, index)
        found[os.fsdecode(file.name)] = str(code or ACCEPTED)
    return found


def verdict_of_stacks(entry: FileEntry, index: Index) -> str:
    """Return the code that a file has as a part of its series (volumes), or as a segmentation of series; "" = taken."""
    stacks = [index.stacks[key] for key in entry.links if key in index.stacks]
    if entry.kind == FileKind.SEGMENTATION:
        if all(stack.code for stack in stacks):
            return RejectCode.SEGMENTATION_UNMATCHED
        return next((stack.segmentation_code for stack in stacks if stack.segmentation_code), "")
    left_out = dict(stacks[0].left_out) if stacks else {}
    if entry.file_key in left_out:
        return left_out[entry.file_key]
    if stacks and entry.file_key in stacks[0].duplicates:
        return RejectCode.DUPLICATE_INSTANCE
    return stacks[0].code if stacks else ""
