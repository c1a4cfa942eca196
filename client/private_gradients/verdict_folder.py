"""Verdicts on disk: one file a question, ``{"format", "question", "verdict"}`` (JSON, 0600), named by a digest of it.

A file that cannot be read is as good as none, with a line in the log: the trial is made again.
"""

import hashlib
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from client.private_gradients.verdict import MOST_SIZES, Question, RememberedVerdicts, Verdict
from common.errors import FedwardError
from common.files import read_bounded, replace_atomically

LARGEST_BYTES: Final = 1 << 16

_log = logging.getLogger("fedward.site")


class _StoredVerdict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    engine: str
    patients: int
    autocast: bool
    smaller: Annotated[tuple[int, ...], Field(max_length=MOST_SIZES, strict=False)] = ()


class _VerdictFile(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: Literal["fedward-engine/1"]
    question: dict[str, str]
    verdict: _StoredVerdict


class VerdictFolder:
    """A folder of files; a folder that is not there has no verdict. Reading again sees what others wrote meanwhile.

    ``remembered``: answers of this process, for folders that share them.
    """

    def __init__(self, path: Path, remembered: RememberedVerdicts | None = None) -> None:
        self._path, self._remembered = path, remembered or RememberedVerdicts()

    def find(self, question: Question) -> Verdict | None:
        """Return the answer of the question's file; a damaged one is said and counts as none."""
        path = self._file(question)
        if not path.exists():
            return self._remembered.find(question)
        try:
            found = _VerdictFile.model_validate_json(read_bounded(path, LARGEST_BYTES))
            verdict = Verdict(**found.verdict.model_dump())
        except (FedwardError, ValidationError, ValueError):
            _log.warning("%s: damaged; engines are tried again", path.name)
            return None
        if found.question != dict(question):
            _log.warning("%s: answers another question; engines are tried again", path.name)
            return None
        return verdict

    def keep(self, question: Question, verdict: Verdict) -> None:
        """Write the question's file. Raises: FileUnreadableError and its kin where nothing can be written."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        stored = _StoredVerdict(**asdict(verdict))
        file = _VerdictFile(format="fedward-engine/1", question=dict(question), verdict=stored)
        self._remembered.keep(question, verdict)
        replace_atomically(self._file(question), file.model_dump_json(indent=1).encode() + b"\n", 0o600)

    def _file(self, question: Question) -> Path:
        digest = hashlib.sha256("\0".join(f"{name}\0{value}" for name, value in question).encode())
        return self._path / f"{digest.hexdigest()[:40]}.json"
