"""The files of a release as they arrive: a folder or a zip, every name known, every size bounded before it is read."""

import zipfile
from pathlib import Path
from typing import Final, Protocol

from common.errors import FileUnreadableError
from common.files import read_bounded
from common.trust.errors import ReleaseInvalidError
from common.trust.release import CARD, MAX_FILE_BYTES, NETWORK, READABLE, SIGNATURE, WEIGHTS

NAMES: Final = (CARD, SIGNATURE, WEIGHTS, NETWORK, READABLE)
MAX_ENTRIES: Final = 16
MAX_ZIP_BYTES: Final = 2 * MAX_FILE_BYTES


class Package(Protocol):
    """Where the files of a release come from."""

    def has(self, name: str) -> bool:
        """Tell whether a file is there."""

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return a file of at most ``max_bytes``. Raises: ReleaseInvalidError, FileUnreadableError."""


def open_package(path: Path) -> Package:
    """Open a release: a folder, or a zip file. Raises: FileUnreadableError, ReleaseInvalidError."""
    return FolderPackage(path) if path.is_dir() else ZipPackage(path)


class FolderPackage:
    """A folder with the files of a release; other files in it are not looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def has(self, name: str) -> bool:
        """Tell whether a file is there."""
        return (self._path / name).is_file()

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return a file. Raises: FileUnreadableError, FileTooLargeError."""
        return read_bounded(self._path / name, max_bytes)


class ZipPackage:
    """A zip file with exactly the files of a release, perhaps inside one folder.

    Nothing is unpacked to a name that the zip chose, and no entry is read further than its limit, whatever its header
    says. Raises: FileUnreadableError, ReleaseInvalidError.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file() or path.stat().st_size > MAX_ZIP_BYTES:
            raise FileUnreadableError(f"{path}: neither a folder nor a zip file of at most {MAX_ZIP_BYTES} bytes")
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception:  # noqa: BLE001 (a version, a method, a name: each has its own)
            raise FileUnreadableError(f"{path}: neither a folder nor a zip file that can be read") from None
        entries = [entry for entry in self._zip.infolist() if not entry.is_dir()]
        if len(entries) > MAX_ENTRIES:
            raise ReleaseInvalidError(f"{path}: {len(entries)} files, a release has at most {MAX_ENTRIES}")
        self._entries = {entry.filename.rpartition("/")[2]: entry for entry in entries}
        if len(self._entries) != len(entries):
            raise ReleaseInvalidError(f"{path}: two files of one name; ask the coordinator for the release again")

    def has(self, name: str) -> bool:
        """Tell whether a file is there."""
        return name in self._entries

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return a file. Raises: ReleaseInvalidError."""
        if name not in self._entries:
            raise ReleaseInvalidError(f"{name}: is not in the release; ask the coordinator for it again")
        try:
            with self._zip.open(self._entries[name]) as file:
                content = file.read(max_bytes + 1)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError):
            raise ReleaseInvalidError(
                f"{name}: cannot be unpacked; ask the coordinator for the release again"
            ) from None
        except Exception as error:  # noqa: BLE001 (zlib.error, lzma.LZMAError: each decoder has its own)
            raise ReleaseInvalidError(f"{name}: is damaged inside the zip ({type(error).__name__})") from None
        if len(content) > max_bytes:
            raise ReleaseInvalidError(f"{name}: longer than {max_bytes} bytes, the limit for this file")
        return content
