"""What happened in a study: one SQLite file of the coordinator, append-only, durable before anything depends on it.

    attempts   an attempt was numbered; this row is on disk before its ORDER leaves, so a number never comes twice
    aborts     it was given up: the check's code and whom it names
    opened     its sum was opened; the sum's file was durable before this row
    applied    the sum moved the model; the checkpoint's file was durable before this row
    answers    what each site was asked, what became of it, bytes and seconds
    refusals   signed refusals of sites: code, and the site they name
    heads      the head of each site's ledger, as it signed it with its keys: against older copies of a ledger
    medians    of which group's sums an applied row is the median, where the plan draws groups
    forwarded  its shares are about to leave, so masked vectors may: from here on the attempt is charged
    unsound    who was in the sum of an attempt that was given up because the sum failed its check
    suspicions what such sums proved: who is left out of cohorts since when, until when, and why

An attempt with neither ``aborts`` nor ``opened`` was cut off by a crash; ``opened`` without ``applied`` is applied when
the server starts again. Triggers refuse every change and deletion of a row.
"""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from common.faults import is_damage
from server.errors import StudyFolderInvalidError
from server.study.journal_rows import (
    NO_DETAILS,
    AbortRow,
    AnswerRow,
    AppliedRow,
    AttemptRow,
    Details,
    HeadRow,
    MedianRow,
    OpenedRow,
    RefusalRow,
    SuspicionRow,
    abort_row,
    applied_row,
    attempt_row,
    opened_row,
    statements_of,
    suspicion_row,
    unsound_row,
)
from server.study.journal_tables import ALL_FORWARDED, schema

Row = TypeVar("Row")


class NotBegunError(Exception):
    """The file has no study yet: its run is making it at this moment."""


class Journal:
    """The file, open for one process. Every ``record_...`` but ``record_answers`` is on disk when it returns.

    Raises (every method): StudyFolderInvalidError if the file is damaged; sqlite3.Error if it cannot be used.
    """

    def __init__(
        self, path: Path, plan_digest: bytes, clock: Callable[[], float] = time.time, *, only_reads: bool = False
    ) -> None:
        """Open or create the journal of the study with that plan; ``only_reads`` is for watching a study that runs.

        Raises: StudyFolderInvalidError if it belongs to another plan.
        """
        self._clock, self._path = clock, path
        if only_reads:
            self._database = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
        else:
            self._database = sqlite3.connect(path, isolation_level=None)
        try:
            if not only_reads:
                self._prepare(plan_digest)
            self._check(plan_digest)
        except BaseException:
            self.close()
            raise

    def _prepare(self, plan_digest: bytes) -> None:
        """Make the tables and the study's one row, unless they are there."""
        # WAL with FULL: one fsync at each commit, and `status` reads while a round runs.
        for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._rows(f"PRAGMA {setting}")
        # of what a journal of before was forwarded nobody knows: every attempt of then counts
        earlier = [] if self._has("forwarded") or not self._has("attempts") else [ALL_FORWARDED]
        self._write([(sql, ()) for sql in schema() + earlier])
        self._write([("INSERT OR IGNORE INTO study VALUES (1, ?, ?)", (plan_digest, self._clock()))])

    def _check(self, plan_digest: bytes) -> None:
        """Look whether the file is whole, and this plan's; a value of another type than its column's is noticed too."""
        if not self._has("study") or not (first := self._rows("SELECT plan_digest FROM study")):
            raise NotBegunError
        if first[0][0] != plan_digest:
            message = "the journal of another plan; a changed plan needs a new folder"
            raise StudyFolderInvalidError(f"{self._path}: {message}")
        if self._rows("PRAGMA quick_check(1)") != [("ok",)]:
            raise self._damaged()

    def _damaged(self) -> StudyFolderInvalidError:
        return StudyFolderInvalidError(f"{self._path}: the study's journal is damaged; put its newest copy back")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def record_attempt(self, *, phase: int, round_number: int, cohort: Sequence[str], model_digest: bytes) -> int:
        """Number the next attempt and make that durable: only then may its ORDER be made."""
        attempt = self.last_attempt() + 1
        row = (attempt, phase, round_number, json.dumps(list(cohort)), model_digest, self._clock())
        self._write([("INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?)", row)])
        return attempt

    def record_abort(self, abort: AbortRow, details: Details = NO_DETAILS) -> None:
        """Note that an attempt was given up."""
        row = (abort.attempt, abort.code, abort.sentence, json.dumps(abort.suspects), self._clock())
        unsound = [("INSERT INTO unsound VALUES (?, ?)", (abort.attempt, json.dumps(list(details.summed))))]
        statements = [*statements_of(details), *(unsound if details.summed else ())]
        self._write([("INSERT INTO aborts VALUES (?, ?, ?, ?, ?)", row), *statements])

    def record_forwarded(self, attempt: int) -> None:
        """Note that an attempt's shares are about to leave: only then may a masked vector come back."""
        self._write([("INSERT INTO forwarded VALUES (?)", (attempt,))])

    def record_suspicion(self, row: SuspicionRow) -> None:
        """Note what unsound sums proved; one row for an attempt."""
        values = (row.attempt, row.kind, json.dumps(row.groups), row.until_attempt, row.sentence, self._clock())
        self._write([("INSERT INTO suspicions VALUES (?, ?, ?, ?, ?, ?)", values)])

    def record_opened(self, row: OpenedRow, details: Details = NO_DETAILS) -> None:
        """Note an opened sum, whose file is durable already."""
        values = (
            row.attempt,
            json.dumps(row.participants),
            json.dumps(row.dropped),
            row.sum_digest,
            row.session_id,
            row.survivors_digest,
            row.transcript_digest,
            row.meta.astype("<u8").tobytes(),
            self._clock(),
        )
        self._write([("INSERT INTO opened VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values), *statements_of(details)])

    def record_applied(self, row: AppliedRow, medians: Sequence[MedianRow] = ()) -> None:
        """Note that a sum, or the median of ``medians``, moved the model; the checkpoint is durable already."""
        values = (row.attempt, row.divisor, row.checkpoint_sha256, row.model_digest, int(row.finished), self._clock())
        insert = "INSERT INTO medians VALUES (?, ?, ?)"
        members = [(insert, (each.attempt, each.divisor, each.applied)) for each in medians]
        self._write([("INSERT INTO applied VALUES (?, ?, ?, ?, ?, ?)", values), *members])

    def record_answers(self, answers: Sequence[AnswerRow]) -> None:
        """Note answers that came after the attempt was decided (to RESULT).

        Nothing depends on them, so this alone does not wait for the disk: the next row takes them along.
        """
        self._database.execute("PRAGMA synchronous=NORMAL")
        try:
            self._write(statements_of(Details(answers)))
        finally:
            self._database.execute("PRAGMA synchronous=FULL")

    def last_attempt(self) -> int:
        """Return the highest attempt so far, 0 before the first."""
        return int(self._rows("SELECT coalesce(max(attempt), 0) FROM attempts")[0][0])

    def attempts_in(self, phase: int) -> int:
        """Return how many attempts at rounds of a phase were numbered."""
        return int(self._rows("SELECT count(*) FROM attempts WHERE phase = ?", phase)[0][0])

    def charged(self) -> list[AttemptRow]:
        """Return the attempts from which a masked vector may have left, in order; of journals of before: all."""
        if not self._has("forwarded"):
            return self.attempts()
        query = "SELECT * FROM attempts WHERE attempt IN (SELECT attempt FROM forwarded) ORDER BY attempt"
        return self._read(attempt_row, query)

    def charged_in_phases(self) -> Counter[int]:
        """Return how many of ``charged`` each phase had."""
        which = "WHERE attempt IN (SELECT attempt FROM forwarded)" if self._has("forwarded") else ""
        return Counter(dict(self._rows(f"SELECT phase, count(*) FROM attempts {which} GROUP BY phase")))  # noqa: S608

    def attempts(self) -> list[AttemptRow]:
        """Return all attempts, in order."""
        return self._read(attempt_row, "SELECT * FROM attempts ORDER BY attempt")

    def aborts(self) -> list[AbortRow]:
        """Return all aborts, in order."""
        return self._read(abort_row, "SELECT * FROM aborts ORDER BY attempt")

    def opened(self) -> list[OpenedRow]:
        """Return all opened sums, in order."""
        return self._read(opened_row, "SELECT * FROM opened ORDER BY attempt")

    def applied(self) -> list[AppliedRow]:
        """Return all applied sums, in order."""
        return self._read(applied_row, "SELECT * FROM applied ORDER BY attempt")

    def medians(self) -> list[MedianRow]:
        """Return which opened sums were applied as a median; empty for journals of before there were groups."""
        return self._read(MedianRow, "SELECT * FROM medians ORDER BY attempt") if self._has("medians") else []

    def last_applied(self) -> AppliedRow | None:
        """Return the last applied sum, None before the first."""
        rows = self._read(applied_row, "SELECT * FROM applied ORDER BY attempt DESC LIMIT 1")
        return rows[0] if rows else None

    def rounds_applied(self) -> int:
        """Return how many sums were applied."""
        return int(self._rows("SELECT count(*) FROM applied")[0][0])

    def recently_applied(self, count: int) -> list[int]:
        """Return the attempts of the last ``count`` applied sums, in order."""
        rows = self._rows("SELECT attempt FROM applied ORDER BY attempt DESC LIMIT ?", count)
        return [row[0] for row in rows][::-1]

    def undecided(self) -> list[int]:
        """Return the attempts that a crash cut off: neither aborted nor opened."""
        rows = self._rows(
            "SELECT attempt FROM attempts WHERE attempt NOT IN (SELECT attempt FROM aborts)"
            " AND attempt NOT IN (SELECT attempt FROM opened) ORDER BY attempt"
        )
        return [row[0] for row in rows]

    def answers(self, asked: str = "%") -> list[AnswerRow]:
        """Return what every site was asked and what became of it; ``asked``: one kind of question only."""
        return self._read(AnswerRow, "SELECT * FROM answers WHERE asked LIKE ? ORDER BY attempt, rowid", asked)

    def refusals(self) -> list[RefusalRow]:
        """Return the sites' signed refusals."""
        return self._read(RefusalRow, "SELECT * FROM refusals ORDER BY attempt, site")

    def unsound(self) -> list[tuple[int, tuple[str, ...]]]:
        """Return attempt and members of each sum that failed its check; empty for journals of before that was kept."""
        return self._read(unsound_row, "SELECT * FROM unsound ORDER BY attempt") if self._has("unsound") else []

    def suspicions(self) -> list[SuspicionRow]:
        """Return what unsound sums proved, in order; empty for journals of before that was kept."""
        if not self._has("suspicions"):
            return []
        return self._read(suspicion_row, "SELECT * FROM suspicions ORDER BY attempt")

    def last_heads(self) -> dict[str, HeadRow]:
        """Return the newest head of each site's ledger; empty for journals of before they were kept."""
        if not self._has("heads"):
            return {}
        rows = self._rows("SELECT attempt, site, head FROM heads ORDER BY attempt")
        return {site: HeadRow(attempt, site, head) for attempt, site, head in rows}

    def started_unix_s(self) -> float:
        """Return when the study was first opened."""
        return float(self._rows("SELECT started_unix_s FROM study")[0][0])

    def _write(self, statements: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
        """Run the statements as one transaction, on disk when this returns."""
        with self._guarded():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                for sql, values in statements:
                    self._database.execute(sql, values)
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _has(self, table: str) -> bool:
        """Tell whether a journal that is only read has this table: those of earlier versions lack the newer ones."""
        return bool(self._rows("SELECT 1 FROM sqlite_master WHERE name = ?", table))

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._guarded():
            return self._database.execute(query, values).fetchall()

    def _read(self, row: Callable[..., Row], query: str, *values: Any) -> list[Row]:
        """Return what ``row`` makes of each row that is found."""
        found = self._rows(query, *values)
        try:
            return [row(*each) for each in found]
        except (ValueError, TypeError):
            raise self._damaged() from None

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise self._damaged() from None
            raise
