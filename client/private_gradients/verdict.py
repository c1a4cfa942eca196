"""What a trial of engines found (``choice``), and the question that it answers: public words, kept on disk as they are.

A verdict depends on no patient. It holds for one network, part of it, shape, loss, machine and installation; anything
else is another question. One file for each: ``{"format", "question", "verdict"}`` (JSON, 0600), named by a digest of
the question. A file that cannot be read is as good as none, with a line in the log: the trial is made again.
"""

import hashlib
import logging
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import FedwardError
from common.files import read_bounded, replace_atomically

LARGEST_BYTES: Final = 1 << 16
Question = tuple[tuple[str, str], ...]
Size = Annotated[int, Field(ge=1, le=4096)]

_log = logging.getLogger("fedward.site")


class Verdict(BaseModel):
    """An engine by name and the sizes of its parts (``way.Way``); sizes in ``smaller`` are below ``patients``."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    engine: Literal["loop", "vmap", "book_keeping", "compiled"]
    patients: Size
    autocast: bool
    smaller: Annotated[tuple[Size, ...], Field(max_length=12, strict=False)] = ()

    @model_validator(mode="after")
    def _sizes_fall(self) -> Self:
        sizes = (self.patients, *self.smaller)
        if any(size <= after for size, after in pairwise(sizes)):
            raise ValueError("sizes of parts must fall")
        return self


class _VerdictFile(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: Literal["fedward-engine/1"]
    question: dict[str, str]
    verdict: Verdict


class Verdicts(Protocol):
    """Where verdicts are kept."""

    def find(self, question: Question) -> Verdict | None:
        """Return the answer to a question that was asked before."""

    def keep(self, question: Question, verdict: Verdict) -> None:
        """Keep an answer."""


class RememberedVerdicts:
    """In memory, for as long as the process lives."""

    def __init__(self) -> None:
        self._known: dict[Question, Verdict] = {}

    def find(self, question: Question) -> Verdict | None:
        """Return the answer to a question that was asked before."""
        return self._known.get(question)

    def keep(self, question: Question, verdict: Verdict) -> None:
        """Keep an answer."""
        self._known[question] = verdict


# Choices of this process: many trainings share one network, and a choice depends on no patient.
KNOWN_HERE: Final = RememberedVerdicts()


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
        except (FedwardError, ValidationError):
            _log.warning("%s: damaged; engines are tried again", path.name)
            return None
        if found.question != dict(question):
            _log.warning("%s: answers another question; engines are tried again", path.name)
            return None
        return found.verdict

    def keep(self, question: Question, verdict: Verdict) -> None:
        """Write the question's file. Raises: FileUnreadableError and its kin where nothing can be written."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        file = _VerdictFile(format="fedward-engine/1", question=dict(question), verdict=verdict)
        self._remembered.keep(question, verdict)
        replace_atomically(self._file(question), file.model_dump_json(indent=1).encode() + b"\n", 0o600)

    def _file(self, question: Question) -> Path:
        digest = hashlib.sha256("\0".join(f"{name}\0{value}" for name, value in question).encode())
        return self._path / f"{digest.hexdigest()[:40]}.json"
