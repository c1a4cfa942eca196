"""A log file that cannot fill the disk: at its size it becomes ``name.1``, the oldest is dropped, mode 0600."""

import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

MAX_LOG_BYTES = 10 << 20  # of one file
OLD_FILES = 5
MAX_LAST_CHARS = 200
MAX_LINE_CHARS = 1 << 16  # a longer line is cut in pieces: memory stays bounded


class RotatingLog(RotatingFileHandler):
    """Lines of text into a file that only its owner can read.

    Edge cases: a full disk loses lines, never the program; several processes must not write the same file.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_LOG_BYTES, old_files: int = OLD_FILES) -> None:
        self.last_line = ""  # kept in memory: on a full disk it is in no file
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__(path, maxBytes=max_bytes, backupCount=old_files, encoding="utf-8", errors="replace")

    def write_line(self, line: str) -> None:
        """Append one line as it is."""
        self.last_line = line.strip()[:MAX_LAST_CHARS] or self.last_line
        self.handle(logging.makeLogRecord({"msg": line.rstrip("\r\n")}))

    def copy_from(self, stream: IO[str]) -> None:
        """Write every line of ``stream`` until it ends."""
        with stream:
            while line := stream.readline(MAX_LINE_CHARS):
                self.write_line(line)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Lose the line: a log that cannot be written must not stop a hospital's work."""

    def _open(self) -> IO[str]:  # type: ignore[override] # narrower than logging's TextIOWrapper
        return open(
            self.baseFilename,
            self.mode,
            encoding=self.encoding,
            errors=self.errors,
            opener=lambda name, flags: os.open(name, flags, 0o600),
        )
