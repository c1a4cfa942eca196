"""The folder of a cache: its header, its lock, its parts.

cache.json          format, cache_id, settings, key check (nothing about patients)
segments/           NNNNNNNN.shard and NNNNNNNN.index (segments.py)
labels.sealed       labels by keyed name
withdrawn.sealed    patients who opted out
studies/            one sealed manifest for each approved study
catalogues/         what all this comes to, sealed, so that opening is quick (catalogue_file.py); may be deleted
lock                held while something writes
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from client.dicom.errors import CacheInvalidError
from client.dicom.settings import PIPELINE_VERSION, IngestSettings
from client.dicom.vault import CACHE_ID_BYTES, Vault
from common.errors import FileTooLargeError, FileUnreadableError
from common.files import parsed_json, read_bounded, write_new

FORMAT = "fedward-cache/1"
HEADER = "cache.json"
MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """An opened cache folder: where it is, what it is for, and the vault that opens its parts."""

    path: Path
    settings: IngestSettings
    vault: Vault

    @property
    def segments(self) -> Path:
        """Folder of shards and index parts."""
        return self.path / "segments"

    @property
    def studies(self) -> Path:
        """Folder of study manifests."""
        return self.path / "studies"


def open_folder(path: Path, secret: bytes) -> CacheFolder:
    """Open an existing cache.

    Raises: CacheInvalidError (no cache, other format, other site secret, edited settings), FileUnreadableError.
    """
    settings, cache_id, check = _header(path)
    vault = Vault(secret, cache_id, settings.digest())
    if not vault.knows(check):
        raise CacheInvalidError(
            f"{path}: made with another site secret, or its settings were edited; remove this folder and ingest again"
        )
    return CacheFolder(path, settings, vault)


def made_for(path: Path) -> IngestSettings | None:
    """Return what a cache says it was made for, before any secret proves it; None where its header cannot be read."""
    try:
        return _header(path)[0]
    except (CacheInvalidError, FileUnreadableError, FileTooLargeError, OSError):
        return None


def _header(path: Path) -> tuple[IngestSettings, bytes, bytes]:
    """Return settings, cache_id and key check of a cache. Raises: as ``open_folder``."""
    if not (path / HEADER).is_file():
        raise CacheInvalidError(f"{path}: no cache here; make one with `fedward-site ingest`")
    try:
        header = parsed_json(read_bounded(path / HEADER, MAX_HEADER_BYTES))
        settings = IngestSettings.model_validate_json(json.dumps(header["settings"]))
        known, cache_id, check = header["format"], bytes.fromhex(header["cache_id"]), bytes.fromhex(header["key_check"])
    except (ValueError, KeyError, TypeError, ValidationError):
        raise CacheInvalidError(
            f"{path}: {HEADER} is damaged or of another version; remove this folder and ingest again"
        ) from None
    if known != FORMAT:
        raise CacheInvalidError(f"{path}: not in the form {FORMAT}; remove this folder and ingest again")
    return settings, cache_id, check


def open_or_create(path: Path, secret: bytes, settings: IngestSettings) -> CacheFolder:
    """Open the cache, or make a new one (mode 0700) for ``settings``.

    Raises: CacheInvalidError, also when the cache was made for other settings; FileUnreadableError.
    """
    if not (path / HEADER).exists():
        _create(path, secret, settings)
    folder = open_folder(path, secret)
    refuse_other_settings(folder, settings)
    return folder


def refuse_other_settings(folder: CacheFolder, settings: IngestSettings) -> None:
    """Refuse to read scans into a cache that was made for something else, or by an older pipeline.

    Raises: CacheInvalidError.
    """
    older = folder.settings.pipeline_version
    if older != PIPELINE_VERSION:
        raise CacheInvalidError(
            f"{folder.path}: made by pipeline {older}, this program is {PIPELINE_VERSION} and may give other values "
            "for the same file; a study approved with this cache goes on; with `--plan` new scans are read into a "
            "cache beside it"
        )
    if folder.settings != settings:
        raise CacheInvalidError(
            f"{folder.path}: made for other settings (task, size or window); leave --cache out, or name another"
        )


def _create(path: Path, secret: bytes, settings: IngestSettings) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)  # a folder that existed may have been open to others
        for name in ("segments", "studies"):
            (path / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise FileUnreadableError(f"{path}: cannot be made ({error.strerror}); check name and rights") from None
    cache_id = secrets.token_bytes(CACHE_ID_BYTES)
    header = {
        "format": FORMAT,
        "cache_id": cache_id.hex(),
        "key_check": Vault(secret, cache_id, settings.digest()).key_check.hex(),
        "settings": settings.model_dump(mode="json"),
    }
    write_new(path / HEADER, json.dumps(header, indent=1).encode(), 0o600)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it when the process ends, however it ends.

    Raises: CacheInvalidError when somebody else writes.
    """
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CacheInvalidError(f"{path}: another ingest is writing to this cache; wait until it is done") from None
        yield
    finally:
        os.close(descriptor)
