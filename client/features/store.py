"""Features of scans, kept encrypted beside the cache: one small file for each scan, so that work can stop anywhere.

    features/PREPARATION/ab/NAME.sealed     NAME = HMAC-SHA256(K_names, preparation || record || its content)[:16]
    sealed = nonce (12) || AES-256-GCM(K_data, nonce, rows as little-endian float32, AAD = NAME) || tag (16)
    K_names, K_data = HKDF-SHA256(site secret, info = "fedward feature names/1", "fedward features/1 PREPARATION")

The name says nothing of a patient, and a scan whose file was replaced by another has another name. A scan of which the
encoder makes no finite numbers has an empty file: it is left out of training, and not tried again. A file that a crash
cut has another length than the preparation says, so it counts as missing and is made again.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from client.dicom.errors import CacheInvalidError
from client.dicom.pseudonyms import derive
from client.dicom.record import RecordInfo
from client.dicom.vault import NONCE_BYTES, OVERHEAD_BYTES
from client.features.preparation import Preparation
from common.errors import of_system
from common.files import replace_atomically

Rows = NDArray[np.float32]

NAMES: Final = "fedward feature names/1"
PACE: Final = "seconds-of-a-scan"
SUFFIX: Final = ".sealed"
KEPT_BYTES: Final = 1 << 28  # of opened features in memory; what is beyond is opened each time
_FOLDER_DIGITS: Final = 2


class FeatureStore:
    """The features of one preparation. ``root``: of all features of a site. Nothing is made before ``put``."""

    def __init__(self, root: Path, secret: bytes, preparation: Preparation) -> None:
        self._preparation, digest = preparation, preparation.digest()
        self._root, self.folder = root, root / digest
        self._names = derive(secret, NAMES)
        self._cipher = AESGCM(derive(secret, f"fedward features/1 {digest}"))
        self._value_bytes = 4 * preparation.shape[0] * preparation.shape[1]
        self._kept: dict[str, Rows | None] = {}

    def missing(self, records: Iterable[RecordInfo]) -> list[RecordInfo]:
        """Return those of ``records`` that have neither features nor the note that they have none."""
        there = {name for name, size in self._files() if size in (OVERHEAD_BYTES, OVERHEAD_BYTES + self._value_bytes)}
        return [record for record in records if self.name_of(record) not in there]

    def put(self, record: RecordInfo, rows: Rows | None) -> None:
        """Keep a scan's features, (rows, features) float32, or that it has none.

        Raises: ValueError for another shape; DiskFullError, RightMissingError: what was kept stays.
        """
        if rows is not None and (rows.shape != self._preparation.shape or rows.dtype != np.float32):
            raise ValueError(f"features are {rows.dtype} {rows.shape}, not float32 {self._preparation.shape}")
        name, nonce = self.name_of(record), secrets.token_bytes(NONCE_BYTES)
        content = b"" if rows is None else rows.astype("<f4", copy=False).tobytes()
        try:
            self._write(name, nonce + self._cipher.encrypt(nonce, content, name.encode()))
        except OSError as error:
            raise of_system(error) or CacheInvalidError(
                f"features cannot be written ({error.strerror}); what was computed stays, try again"
            ) from None

    def read(self, record: RecordInfo) -> Rows | None:
        """Return a scan's features, (rows, features) float32; None where the encoder made none.

        Raises: CacheInvalidError for features that are missing, changed or cut.
        """
        name = self.name_of(record)
        if name in self._kept:
            return self._kept[name]
        rows = self._opened(name)
        if len(self._kept) * self._value_bytes < KEPT_BYTES:
            self._kept[name] = rows
        return rows

    def note_scan_s(self, seconds: float) -> None:
        """Keep how long one scan takes here, for forecasts. Raises: DiskFullError, RightMissingError."""
        self._make(self.folder)
        replace_atomically(self.folder / PACE, f"{seconds:.4f}\n".encode(), 0o600)

    def scan_s(self) -> float:
        """Return how long one scan took here; 0 where nobody measured."""
        try:
            return max(0.0, float((self.folder / PACE).read_text(encoding="ascii")))
        except (OSError, ValueError):
            return 0.0

    def name_of(self, record: RecordInfo) -> str:
        """Return the keyed name of a scan's features."""
        return _name(self._names, self.folder.name, record)

    def _opened(self, name: str) -> Rows | None:
        try:
            sealed = self._path(name).read_bytes()
            content = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
        except (OSError, InvalidTag, ValueError):
            raise CacheInvalidError("features of a scan are missing or were changed; approve the plan again") from None
        if len(content) not in (0, self._value_bytes):
            raise CacheInvalidError("the features of a scan have another length; remove the folder `features`")
        return np.frombuffer(content, "<f4").reshape(self._preparation.shape).astype(np.float32) if content else None

    def _write(self, name: str, sealed: bytes) -> None:
        """Write a file and rename it. Not forced to the disk: what a crash takes is computed again."""
        path = self._path(name)
        self._make(path.parent)
        partial = path.with_name(f".{name}.partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(sealed)
        partial.rename(path)

    def _make(self, folder: Path) -> None:
        for each in (self._root, self.folder, folder):
            each.mkdir(mode=0o700, exist_ok=True)

    def _files(self) -> Iterable[tuple[str, int]]:
        """Yield name and size of every file of this preparation."""
        for file in self.folder.glob(f"*/*{SUFFIX}"):
            yield file.name.removesuffix(SUFFIX), file.stat().st_size

    def _path(self, name: str) -> Path:
        return self.folder / name[:_FOLDER_DIGITS] / f"{name}{SUFFIX}"


def keep_only(root: Path, secret: bytes, records: Iterable[RecordInfo], *, only_known_folders: bool = False) -> int:
    """Remove features of scans that are here no more (erased, opted out, replaced), of every preparation.

    ``records``: all that the caches have. ``only_known_folders``: a preparation of which none of them has features is
    left as it is: it may be of a cache that cannot be opened. Returns how many files were removed.
    Raises: DiskFullError, RightMissingError.
    """
    key, known, removed = derive(secret, NAMES), list(records), 0
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        wanted = {_name(key, folder.name, record) for record in known}
        files = {file: file.name.removesuffix(SUFFIX) in wanted for file in folder.glob("*/*")}
        if only_known_folders and not any(files.values()):
            continue
        for file in (file for file, is_wanted in files.items() if not is_wanted):
            _unlink(file)
            removed += 1
    return removed


def _name(key: bytes, preparation: str, record: RecordInfo) -> str:
    parts = (preparation.encode(), record.record_id.encode(), record.content_digest)
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]


def _unlink(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise of_system(error) or CacheInvalidError(f"features cannot be removed ({error.strerror})") from None
