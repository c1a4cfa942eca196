"""What happened in a study: one SQLite file of the coordinator, append-only, durable before anything depends on it.

    attempts   an attempt was numbered; this row is on disk before its ORDER leaves, so a number never comes twice
    aborts     it was given up: the check's code and whom it names
    opened     its sum was opened; the sum's file was durable before this row
    applied    the sum moved the model; the checkpoint's file was durable before this row
    answers    what each site was asked, what became of it, bytes and seconds
    refusals   signed refusals of sites: code, and the site they name
    heads      the head of each site's ledger, as it signed it with its keys: against older copies of a ledger
    medians    of which group's sums an applied row is the median, where the plan draws groups
    unsound    who was in the sum of an attempt that was given up because the sum failed its check
    suspicions what such sums proved: who is left out of cohorts since when, until when, and why

An attempt with neither ``aborts`` nor ``opened`` was cut off by a crash; ``opened`` without ``applied`` is applied when
the server starts again. Triggers refuse every change and deletion of a row.
"""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

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
    SuspicionKind,
    SuspicionRow,
)
from server.study.journal_tables import schema


class Journal:
    """The file, open for one process. Every ``record_...`` but ``record_answers`` is on disk when it returns.

    Raises (every method): sqlite3.Error if the file cannot be read or written.
    """

    def __init__(
        self, path: Path, plan_digest: bytes, clock: Callable[[], float] = time.time, *, only_reads: bool = False
    ) -> None:
        """Open or create the journal of the study with that plan; ``only_reads`` is for watching a study that runs.

        Raises: StudyFolderInvalidError if it belongs to another plan.
        """
        self._clock = clock
        if only_reads:
            self._database = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
        else:
            self._database = sqlite3.connect(path, isolation_level=None)
            self._prepare(plan_digest)
        if self._rows("SELECT plan_digest FROM study")[0][0] != plan_digest:
            self.close()
            raise StudyFolderInvalidError(f"{path}: the journal of another plan; a changed plan needs a new folder")

    def _prepare(self, plan_digest: bytes) -> None:
        """Make the tables and the study's one row, unless they are there."""
        # WAL with FULL: one fsync at each commit, and `status` reads while a round runs.
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("PRAGMA foreign_keys=ON")
        self._write([(sql, ()) for sql in schema()])
        self._write([("INSERT OR IGNORE INTO study VALUES (1, ?, ?)", (plan_digest, self._clock()))])

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
        statements = [*_statements(details), *(unsound if details.summed else ())]
        self._write([("INSERT INTO aborts VALUES (?, ?, ?, ?, ?)", row), *statements])

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
        self._write([("INSERT INTO opened VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values), *_statements(details)])

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
            self._write(_statements(Details(answers)))
        finally:
            self._database.execute("PRAGMA synchronous=FULL")

    def last_attempt(self) -> int:
        """Return the highest attempt so far, 0 before the first."""
        return int(self._rows("SELECT coalesce(max(attempt), 0) FROM attempts")[0][0])

    def attempts_in(self, phase: int) -> int:
        """Return how many attempts at rounds of a phase were numbered."""
        return int(self._rows("SELECT count(*) FROM attempts WHERE phase = ?", phase)[0][0])

    def most_orders_of_a_site(self, phase: int) -> int:
        """Return how many attempts of a phase the site was ordered for that was ordered for most."""
        orders = Counter(site for row in self.attempts() if row.phase == phase for site in row.cohort)
        return max(orders.values(), default=0)

    def attempts(self) -> list[AttemptRow]:
        """Return all attempts, in order."""
        rows = self._rows("SELECT * FROM attempts ORDER BY attempt")
        return [AttemptRow(a, p, r, tuple(json.loads(cohort)), digest, at) for a, p, r, cohort, digest, at in rows]

    def aborts(self) -> list[AbortRow]:
        """Return all aborts, in order."""
        rows = self._rows("SELECT * FROM aborts ORDER BY attempt")
        return [AbortRow(a, code, text, tuple(json.loads(suspects)), at) for a, code, text, suspects, at in rows]

    def opened(self) -> list[OpenedRow]:
        """Return all opened sums, in order."""
        return [
            OpenedRow(
                a,
                tuple(json.loads(there)),
                tuple(json.loads(gone)),
                total,
                sid,
                u3h,
                transcript,
                np.frombuffer(meta, "<u8"),
                at,
            )
            for a, there, gone, total, sid, u3h, transcript, meta, at in self._rows(
                "SELECT * FROM opened ORDER BY attempt"
            )
        ]

    def applied(self) -> list[AppliedRow]:
        """Return all applied sums, in order."""
        return [_applied_row(row) for row in self._rows("SELECT * FROM applied ORDER BY attempt")]

    def medians(self) -> list[MedianRow]:
        """Return which opened sums were applied as a median; empty for journals of before there were groups."""
        rows = self._rows("SELECT * FROM medians ORDER BY attempt") if self._has("medians") else []
        return [MedianRow(*row) for row in rows]

    def last_applied(self) -> AppliedRow | None:
        """Return the last applied sum, None before the first."""
        rows = self._rows("SELECT * FROM applied ORDER BY attempt DESC LIMIT 1")
        return _applied_row(rows[0]) if rows else None

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

    def answers(self) -> list[AnswerRow]:
        """Return what every site was asked and what became of it."""
        return [AnswerRow(*row) for row in self._rows("SELECT * FROM answers ORDER BY attempt, rowid")]

    def refusals(self) -> list[RefusalRow]:
        """Return the sites' signed refusals."""
        return [RefusalRow(*row) for row in self._rows("SELECT * FROM refusals ORDER BY attempt, site")]

    def unsound(self) -> list[tuple[int, tuple[str, ...]]]:
        """Return attempt and members of each sum that failed its check; empty for journals of before that was kept."""
        rows = self._rows("SELECT * FROM unsound ORDER BY attempt") if self._has("unsound") else []
        return [(attempt, tuple(json.loads(summed))) for attempt, summed in rows]

    def suspicions(self) -> list[SuspicionRow]:
        """Return what unsound sums proved, in order; empty for journals of before that was kept."""
        rows = self._rows("SELECT * FROM suspicions ORDER BY attempt") if self._has("suspicions") else []
        return [
            SuspicionRow(a, SuspicionKind(kind), tuple(map(tuple, json.loads(groups))), until, sentence, at)
            for a, kind, groups, until, sentence, at in rows
        ]

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
        return self._database.execute(query, values).fetchall()


def _applied_row(row: tuple[Any, ...]) -> AppliedRow:
    return AppliedRow(row[0], row[1], row[2], row[3], bool(row[4]), row[5])


def _statements(details: Details) -> list[tuple[str, tuple[Any, ...]]]:
    return [
        *(("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", tuple(asdict(row).values())) for row in details.answers),
        *(("INSERT INTO refusals VALUES (?, ?, ?, ?, ?)", tuple(asdict(row).values())) for row in details.refusals),
        *(("INSERT INTO heads VALUES (?, ?, ?)", tuple(asdict(row).values())) for row in details.heads),
    ]
