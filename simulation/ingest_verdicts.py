"""What an ingest decided about each single file: reports hold counts only, tests and trials need more."""

import os
from pathlib import Path

from client.dicom.cache_folder import open_folder
from client.dicom.segments import read_index
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
    store = Store(index, None, settings=folder.settings, secret=secret, withdrawn=frozenset())
    found = {}
    for file in walk(source):
        entry = store.known(file)
        code = file.code if entry is None else entry.code
        found[os.fsdecode(file.name)] = str(code or (NOT_READ if entry is None else ACCEPTED))
    return found
