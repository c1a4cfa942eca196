"""The rows of a study's journal (``journal``), as the rest of the server reads and writes them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from common.files import parsed_json

LOST: Final = 0  # the code of an attempt that a crash of the server cut off


@dataclass(frozen=True)
class AttemptRow:
    """A numbered attempt. ``model_digest``: of the model it was ordered with."""

    attempt: int
    phase: int
    round_number: int
    cohort: tuple[str, ...]
    model_digest: bytes
    unix_s: float


@dataclass(frozen=True)
class AbortRow:
    """An attempt that was given up. ``code``: of ``common.secagg.refusals``, or ``LOST``."""

    attempt: int
    code: int
    sentence: str
    suspects: tuple[str, ...]
    unix_s: float = 0.0


@dataclass(frozen=True, eq=False)
class OpenedRow:
    """An attempt whose sum was opened. Shapes: meta (meta words,) uint64. Digests: see ``OpenedSum``."""

    attempt: int
    participants: tuple[str, ...]
    dropped: tuple[str, ...]
    sum_digest: bytes
    session_id: bytes
    survivors_digest: bytes
    transcript_digest: bytes
    meta: NDArray[np.uint64]
    unix_s: float = 0.0


@dataclass(frozen=True)
class AppliedRow:
    """An attempt whose sum moved the model. ``model_digest``: of the model that the next order brings."""

    attempt: int
    divisor: float
    checkpoint_sha256: str
    model_digest: bytes
    finished: bool
    unix_s: float = 0.0


@dataclass(frozen=True)
class MedianRow:
    """An opened sum of a group. ``divisor``: of its mean. ``applied``: the attempt whose row stands for the round."""

    attempt: int
    divisor: float
    applied: int


@dataclass(frozen=True)
class AnswerRow:
    """What became of one question to one site: ``taken``, ``timeout``, ``refused:…``, ``rejected:…``, ``failed:…``."""

    attempt: int
    asked: str
    site: str
    outcome: str
    bytes_to_site: int
    bytes_from_site: int
    seconds: float


@dataclass(frozen=True)
class RefusalRow:
    """A site's signed refusal in an attempt."""

    attempt: int
    site: str
    stage: str
    code: int
    about: str


@dataclass(frozen=True)
class HeadRow:
    """The head (32 bytes) of a site's ledger chain for this study, which it signed in an attempt."""

    attempt: int
    site: str
    head: bytes


class SuspicionKind(StrEnum):
    """What sums that failed their check led to: one group rests, or two are left out in turn."""

    RESTS = "rests"
    MUTUAL = "mutual"


@dataclass(frozen=True)
class SuspicionRow:
    """What sums up to ``attempt`` proved (``server.attempts.suspicion``), held to before ``until_attempt``, and why."""

    attempt: int
    kind: SuspicionKind
    groups: tuple[tuple[str, ...], ...]
    until_attempt: int
    sentence: str
    unix_s: float = 0.0


@dataclass(frozen=True)
class Details:
    """What came of an attempt besides its end. ``summed``: who was in its sum, where that failed its check."""

    answers: Sequence[AnswerRow] = ()
    refusals: Sequence[RefusalRow] = ()
    heads: Sequence[HeadRow] = ()
    summed: Sequence[str] = ()


NO_DETAILS: Final = Details()


def attempt_row(*stored: Any) -> AttemptRow:
    """Return the row that is stored so. Raises, as all of these: ValueError, TypeError for a damaged one."""
    attempt, phase, round_number, cohort, *rest = stored
    return AttemptRow(attempt, phase, round_number, tuple(parsed_json(cohort)), *rest)


def abort_row(*stored: Any) -> AbortRow:
    """Return the row that is stored so."""
    attempt, code, sentence, suspects, unix_s = stored
    return AbortRow(attempt, code, sentence, tuple(parsed_json(suspects)), unix_s)


def opened_row(*stored: Any) -> OpenedRow:
    """Return the row that is stored so."""
    attempt, participants, dropped, total, session, survivors, transcript, meta, unix_s = stored
    there, gone = tuple(parsed_json(participants)), tuple(parsed_json(dropped))
    counts = np.frombuffer(meta, "<u8")
    return OpenedRow(attempt, there, gone, total, session, survivors, transcript, counts, unix_s)


def applied_row(*stored: Any) -> AppliedRow:
    """Return the row that is stored so."""
    attempt, divisor, checkpoint, model, finished, unix_s = stored
    return AppliedRow(attempt, divisor, checkpoint, model, bool(finished), unix_s)


def unsound_row(attempt: int, summed: str) -> tuple[int, tuple[str, ...]]:
    """Return attempt and members of a sum that failed its check."""
    return attempt, tuple(parsed_json(summed))


def suspicion_row(*stored: Any) -> SuspicionRow:
    """Return the row that is stored so."""
    attempt, kind, groups, *rest = stored
    return SuspicionRow(attempt, SuspicionKind(kind), tuple(map(tuple, parsed_json(groups))), *rest)


def statements_of(details: Details) -> list[tuple[str, tuple[Any, ...]]]:
    """Return what writes the details of an attempt: SQL and values."""
    return [
        *(("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", tuple(asdict(row).values())) for row in details.answers),
        *(("INSERT INTO refusals VALUES (?, ?, ?, ?, ?)", tuple(asdict(row).values())) for row in details.refusals),
        *(("INSERT INTO heads VALUES (?, ?, ?)", tuple(asdict(row).values())) for row in details.heads),
    ]
