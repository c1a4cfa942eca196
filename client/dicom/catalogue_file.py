"""Where catalogues lie, and how one is told from another: by marks of all that it was made from.

    catalogues/records.sealed    what the cache holds now
    catalogues/DIGEST.sealed     the view of a frozen study

The marks are number, size, nonce and tag of each sealed index part, of labels, rules for persons, opt-outs and the
study's manifest. Whoever seals anything anew draws a new nonce, so no two states have the same marks; a file that was
cut or replaced has others too. A catalogue with other marks is never read: it is made anew from those files. Nothing is
lost with a catalogue; it may be deleted at any time.
"""

import hashlib
import logging
import mmap
from pathlib import Path
from typing import Final

from client.dicom.cache_folder import CacheFolder
from client.dicom.catalogue import Catalogue
from client.dicom.errors import CacheInvalidError
from client.dicom.segments import committed, index_path
from client.dicom.vault import NONCE_BYTES, TAG_BYTES
from common.errors import FedwardError
from common.files import replace_atomically

FOLDER: Final = "catalogues"
RECORDS: Final = "records"
SEALED: Final = ("labels.sealed", "persons.sealed", "withdrawn.sealed")

_log = logging.getLogger("fedward.site")


def marks_of(folder: CacheFolder, study: str) -> bytes:
    """Return 32 bytes that change with anything that the view of ``study`` ("": none) is made from.

    Reads the ends of some files; nothing is decrypted.
    """
    digest = hashlib.sha256(b"fedward catalogue marks/1\0")
    files = [index_path(folder.segments, number) for number in committed(folder.segments)]
    files += [folder.path / name for name in SEALED]
    files += [folder.studies / f"{study}.sealed"] if study else []
    for path in files:
        digest.update(path.name.encode() + b"\0" + _mark(path) + b"\0")
    return digest.digest()


def load_catalogue(folder: CacheFolder, study: str, marks: bytes) -> Catalogue | None:
    """Return the catalogue of a view if there is one and it has these marks; None where it must be made anew."""
    path = _path(folder, study)
    try:
        with path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        found = Catalogue(folder.vault, study or RECORDS, content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, CacheInvalidError):
        _log.warning("a catalogue of the cache is damaged; it is made anew")
        return None
    return found if found.marks == marks else None


def save_catalogue(folder: CacheFolder, study: str, content: bytes) -> None:
    """Keep a catalogue for whoever opens the cache next; where nothing may be written, do without."""
    path = _path(folder, study)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        replace_atomically(path, content, 0o600)
    except (OSError, FedwardError):
        _log.info("a catalogue of the cache could not be kept; whoever opens the cache next makes it again")


def forget_catalogues(folder: CacheFolder) -> None:
    """Remove all catalogues: what they say of an erased record goes with it."""
    for path in (folder.path / FOLDER).glob("*"):
        path.unlink(missing_ok=True)


def _path(folder: CacheFolder, study: str) -> Path:
    return folder.path / FOLDER / f"{study or RECORDS}.sealed"


def _mark(path: Path) -> bytes:
    """Return size, nonce and tag of a sealed file; nothing for one that is not there."""
    try:
        with path.open("rb") as file:
            nonce = file.read(NONCE_BYTES)
            size = file.seek(0, 2)
            file.seek(max(0, size - TAG_BYTES))
            return size.to_bytes(8, "big") + nonce + file.read(TAG_BYTES)
    except FileNotFoundError:
        return b""
