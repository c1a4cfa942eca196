"""A person says that a waiting study should go on at once: a mark in its folder, at which a waiting run looks."""

import os
from pathlib import Path
from typing import Final

from common.errors import FedwardError
from common.files import read_bounded, replace_atomically

FILE_NAME: Final = "go-on"


def say_go_on(study_folder: Path) -> None:
    """Have everybody asked at once, whoever refused before. Raises: FileUnreadableError, DiskFullError."""
    replace_atomically(study_folder / FILE_NAME, os.urandom(16).hex().encode())


class GoOnSignal:
    """True once for each time that a person said so since this object was made."""

    def __init__(self, study_folder: Path) -> None:
        self._file = study_folder / FILE_NAME
        self._seen = self._mark()

    def __call__(self) -> bool:
        """Tell whether a person said so since the last call."""
        mark = self._mark()
        is_new, self._seen = mark != self._seen, mark
        return is_new

    def _mark(self) -> bytes:
        try:
            return read_bounded(self._file, 64)
        except FedwardError:
            return b""
