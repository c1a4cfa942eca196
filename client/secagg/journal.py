"""The site's durable memory of secure aggregation: attempts, vectors that left, opened models, announced results.

Everything is on disk (SQLite in WAL mode with ``synchronous=FULL``: one fsync at each commit) before the message that
depends on it is sent, so a crash can cost an attempt but never repeats one. Secrets of a session are never written.
While a site works, the newest entries are in the file beside it (``-wal``): a backup takes both, or neither.

Limit: a restored older copy of this file forgets attempts. The ledger's head in each KEYS message lets the others see
that; whoever restores a site must call ``skip_to`` with an attempt above the last one the coordinator knows.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from client.errors import JournalDamagedError
from common.faults import is_damage

_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (plan BLOB, attempt INTEGER, phase INTEGER NOT NULL,
                                     PRIMARY KEY (plan, attempt)) STRICT;
CREATE TABLE IF NOT EXISTS released (plan BLOB, model BLOB, attempt INTEGER NOT NULL, PRIMARY KEY (plan, model)) STRICT;
CREATE TABLE IF NOT EXISTS contributed (plan BLOB, contribution BLOB, PRIMARY KEY (plan, contribution)) STRICT;
CREATE TABLE IF NOT EXISTS told (plan BLOB PRIMARY KEY, attempts INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS results (plan BLOB, phase INTEGER, round INTEGER, model BLOB NOT NULL,
                                    PRIMARY KEY (plan, phase, round)) STRICT;
CREATE TABLE IF NOT EXISTS announced (plan BLOB, attempt INTEGER, result BLOB NOT NULL,
                                      PRIMARY KEY (plan, attempt)) STRICT;
"""
# Of what left before this table was kept nobody knows: every attempt so far counts as one whose vector left.
_MASKED: Final = (
    "CREATE TABLE masked (plan BLOB, attempt INTEGER, phase INTEGER NOT NULL, PRIMARY KEY (plan, attempt)) STRICT",
    "INSERT INTO masked SELECT plan, attempt, phase FROM attempts WHERE phase >= 0",
)
_BUSY_TIMEOUT_S: Final = 5.0
_PAGES_IN_WAL: Final = (
    100  # then they are moved to the file; a short WAL is written over, which costs less than to grow
)


_CREATING: Final = threading.Lock()


def _create(path: Path) -> None:
    """Create the file, readable by its owner only, unless it is there; one that is there is never opened.

    To close a descriptor gives back every POSIX lock that this process holds on the file, SQLite's too: the next
    process would take itself for the only one and remove the write-ahead log that this one goes on writing
    (https://www.sqlite.org/howtocorrupt.html section 2.2).
    """
    with _CREATING, contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _add_masked(database: sqlite3.Connection) -> None:
    """Add what journals of before did not keep, in one transaction with what it begins with."""
    database.execute("BEGIN IMMEDIATE")
    try:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'masked'").fetchone():
            for statement in _MASKED:
                database.execute(statement)
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise


class SiteJournal:
    """One SQLite file of one site; every ``record_...`` is on disk when it returns.

    One connection for the life of the object: to open, read the schema and close cost more than the commit itself.
    Threads take turns, processes may share the file; each method is one transaction.
    Raises (every method): JournalDamagedError; another sqlite3.Error if the file cannot be read or written, or in a
    fork of the process that opened it; a session then refuses and sends nothing.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file, readable by its owner only."""
        _create(path)
        self._path, self._turn, self._process = path, threading.Lock(), os.getpid()
        self._database = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            with self._open() as database:
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=FULL")
                database.execute(f"PRAGMA wal_autocheckpoint={_PAGES_IN_WAL}")
                database.executescript(_SCHEMA)
                _add_masked(database)
                is_whole = database.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        except BaseException:
            self._database.close()
            raise
        if not is_whole:
            self._database.close()
            raise self._damaged()

    def close(self) -> None:
        """Close the file; what was recorded stays."""
        with self._turn:
            self._database.close()

    def record_attempt(self, plan_digest: bytes, phase: int, attempt: int) -> bool:
        """Make ``attempt`` the plan's last one; False, with nothing written, unless it is higher than all before."""
        with self._open() as database:
            written = database.execute(
                "INSERT INTO attempts SELECT :plan, :attempt, :phase"
                " WHERE NOT EXISTS (SELECT 1 FROM attempts WHERE plan = :plan AND attempt >= :attempt)",
                {"plan": plan_digest, "attempt": attempt, "phase": phase},
            )
            return written.rowcount == 1

    def last_attempt(self, plan_digest: bytes) -> int:
        """Return the highest attempt of the plan so far, 0 before the first."""
        return self._number("SELECT max(attempt) FROM attempts WHERE plan = ?", plan_digest)

    def attempts_in(self, plan_digest: bytes, phase: int) -> int:
        """Return how many attempts at rounds of that phase this site has begun."""
        return self._number("SELECT count(*) FROM attempts WHERE plan = ? AND phase = ?", plan_digest, phase)

    def record_masked(self, plan_digest: bytes, phase: int, attempt: int) -> None:
        """Note that a masked vector of that attempt is about to leave: from here on the attempt counts."""
        with self._open() as database:
            database.execute("INSERT OR IGNORE INTO masked VALUES (?, ?, ?)", (plan_digest, attempt, phase))

    def masked_in(self, plan_digest: bytes, phase: int) -> int:
        """Return how many attempts at rounds of that phase a masked vector of this site may have left in."""
        return self._number("SELECT count(*) FROM masked WHERE plan = ? AND phase = ?", plan_digest, phase)

    def skip_to(self, plan_digest: bytes, attempt: int) -> None:
        """Forbid all attempts up to ``attempt``: for staff, after restoring the file from a backup."""
        self.record_attempt(plan_digest, -1, attempt)

    def tell(self, plan_digest: bytes, attempts: int) -> None:
        """Note how many attempts at the plan other files show, where this file was restored or begins again."""
        with self._open() as database:
            database.execute("INSERT OR REPLACE INTO told VALUES (?, ?)", (plan_digest, attempts))

    def told(self, plan_digest: bytes) -> int:
        """Return how many attempts at the plan this file was told of."""
        return self._number("SELECT attempts FROM told WHERE plan = ?", plan_digest)

    def plans(self) -> list[bytes]:
        """Return the digest of every plan that this file knows an attempt of."""
        with self._open() as database:
            return [bytes(row[0]) for row in database.execute("SELECT DISTINCT plan FROM attempts ORDER BY plan")]

    def counts(self, plan_digest: bytes) -> tuple[int, int, int]:
        """Return the plan's last attempt, how many attempts are noted or were told, how many models were opened."""
        begun = self._number("SELECT count(*) FROM attempts WHERE plan = ? AND phase >= 0", plan_digest)
        told = self.told(plan_digest)
        opened = self._number("SELECT count(*) FROM released WHERE plan = ?", plan_digest)
        return self.last_attempt(plan_digest), begun + told, opened

    def record_release(self, plan_digest: bytes, model_digest: bytes, attempt: int) -> None:
        """Note that this site helped to open a sum over that model."""
        with self._open() as database:
            database.execute("INSERT OR REPLACE INTO released VALUES (?, ?, ?)", (plan_digest, model_digest, attempt))

    def released_in(self, plan_digest: bytes, model_digest: bytes) -> int:
        """Return the last attempt that opened a sum over that model, 0 if none did."""
        return self._number("SELECT attempt FROM released WHERE plan = ? AND model = ?", plan_digest, model_digest)

    def record_contribution(self, plan_digest: bytes, contribution_digest: bytes) -> bool:
        """Note a vector by its digest; False if the very same one was noted before."""
        with self._open() as database:
            written = database.execute(
                "INSERT OR IGNORE INTO contributed VALUES (?, ?)", (plan_digest, contribution_digest)
            )
            return written.rowcount == 1

    def record_result(self, plan_digest: bytes, *, phase: int, round_number: int, model_digest: bytes) -> None:
        """Note the model that a round led to; the last word of the coordinator on a round counts."""
        with self._open() as database:
            database.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", (plan_digest, phase, round_number, model_digest)
            )

    def result_of(self, plan_digest: bytes, *, phase: int, round_number: int) -> bytes | None:
        """Return the model digest that a round led to, or None where this site was not told."""
        with self._open() as database:
            row = database.execute(
                "SELECT model FROM results WHERE plan = ? AND phase = ? AND round = ?",
                (plan_digest, phase, round_number),
            ).fetchone()
        return bytes(row[0]) if row else None

    def record_announcement(self, plan_digest: bytes, attempt: int, result_digest: bytes) -> None:
        """Note the digest of the RESULT of an attempt; the first that was told stays."""
        with self._open() as database:
            database.execute("INSERT OR IGNORE INTO announced VALUES (?, ?, ?)", (plan_digest, attempt, result_digest))

    def announcement_of(self, plan_digest: bytes, attempt: int) -> bytes | None:
        """Return the digest of the RESULT of an attempt, or None where this site was not told."""
        with self._open() as database:
            row = database.execute(
                "SELECT result FROM announced WHERE plan = ? AND attempt = ?", (plan_digest, attempt)
            ).fetchone()
        return bytes(row[0]) if row else None

    def last_announcement(self, plan_digest: bytes) -> tuple[int, bytes]:
        """Return attempt and digest of the newest RESULT of the plan; (0, zeros) before the first."""
        attempt = self._number("SELECT max(attempt) FROM announced WHERE plan = ?", plan_digest)
        return attempt, self.announcement_of(plan_digest, attempt) or bytes(32)

    def _number(self, query: str, *values: bytes | int) -> int:
        with self._open() as database:
            row = database.execute(query, values).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to one thread at a time; each statement is one durable transaction."""
        with self._turn:
            if os.getpid() != self._process:
                # SQLite's locks and buffers do not survive a fork: two processes would write over each other
                raise sqlite3.ProgrammingError("a journal is used by the process that opened it, not by a fork of it")
            try:
                yield self._database
            except (sqlite3.DatabaseError, TypeError, OverflowError) as error:  # the last two: of values that cannot be
                if isinstance(error, sqlite3.ProgrammingError) or (
                    isinstance(error, sqlite3.DatabaseError) and not is_damage(error)
                ):
                    raise
                raise self._damaged() from None

    def _damaged(self) -> JournalDamagedError:
        return JournalDamagedError(
            f"{self._path}: the journal of attempts is damaged; put the newest copy back (docs/lost-files.md)"
        )
