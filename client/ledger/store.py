"""The ledger's file: an append-only, hash-chained table in SQLite that survives kill -9 and notices older copies.

    hash_i       = SHA-256("fedward-ledger/1"       0  hash_(i-1)          body_i)     over all entries
    study_hash_i = SHA-256("fedward-ledger-study/1" 0  study_hash_before   body_i)     over entries of the same study

The study's chain starts at the digest of the study. Its head travels in the site's signed KEYS messages, so others hold
proof of how long the chain was; the head of the whole chain lies beside the file (``.anchor``) for the common accident
that the file alone is restored from a backup. WAL with ``synchronous=FULL``: an entry is on disk when ``append``
returns. ``BEGIN IMMEDIATE`` around reading and writing: two processes cannot both spend the last of a budget.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from client.ledger.errors import LedgerBusyError, LedgerInvalidError
from common.errors import OutputExistsError, of_system
from common.faults import is_damage
from common.files import parsed_json, read_bounded, replace_atomically, sync_folder
from common.trust.canonical import canonical_bytes

APPLICATION_ID: Final = 0x46574C47  # "FWLG" in the file's header: another SQLite file is not a ledger
FORMAT: Final = 1
BUSY_TIMEOUT_S: Final = 60.0
MAX_BODY_BYTES: Final = 16 * 1024
START: Final = bytes(32)
_SLOT_BYTES: Final = 512  # a sector: a disk writes it whole or not at all
_PAGES_IN_WAL: Final = (
    100  # then they are moved to the file; a short WAL is written over, which costs less than to grow
)

_SCHEMA = """
CREATE TABLE entries (number INTEGER PRIMARY KEY, study TEXT NOT NULL, body TEXT NOT NULL,
                      hash BLOB NOT NULL, study_hash BLOB NOT NULL) STRICT;
CREATE TRIGGER never_changed BEFORE UPDATE ON entries BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER never_removed BEFORE DELETE ON entries BEGIN SELECT raise(ABORT, 'append only'); END;
"""


@dataclass(frozen=True)
class Row:
    """One verified entry: its number from 1, what it says, the head of its study's chain after it."""

    number: int
    study: str
    body: dict[str, Any]
    study_hash: bytes


class LedgerStore:
    """One ledger file in use by this process. One thread at a time, whichever.

    Raises (every method): LedgerInvalidError when the file is missing, damaged, changed or older than its anchor;
    LedgerBusyError when another process holds it for longer than a minute; DiskFullError, RightMissingError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[Row] = []
        self._head = START
        with self._guarded():
            if not path.is_file():
                raise LedgerInvalidError(
                    f"{path}: there is no privacy ledger, and a lost one must not begin again at zero: put the newest "
                    "copy back, with its anchor (docs/lost-files.md)"
                )
            self._database = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                isolation_level=None,
                timeout=BUSY_TIMEOUT_S,
                check_same_thread=False,  # one thread at a time uses it, but not always the same one (client.site)
            )
            try:
                self._prepare()
                self._catch_up()
                self._compare_anchor()
            except BaseException:
                self._database.close()
                raise

    @classmethod
    def create(cls, path: Path) -> "LedgerStore":
        """Create an empty ledger (mode 0600). Raises: OutputExistsError if it, or its anchor, exists."""
        for file in (path, _anchor(path)):
            if file.exists():
                raise OutputExistsError(f"{file}: exists already; a ledger is never begun twice")
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.executescript(
                f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; {_SCHEMA} COMMIT;"
            )
        _create_anchor(path)
        sync_folder(path.parent)
        return cls(path)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the file against all other writers, with ``rows`` up to date; commit at the end, or undo on an error."""
        with self._guarded():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._catch_up()
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                self._forget_uncommitted()
                raise
            _write_anchor(self._path, len(self.rows), self._head)

    def append(self, study: str, body: dict[str, Any]) -> None:
        """Add one entry inside ``exclusive``; it is durable when that block ends."""
        text = canonical_bytes(body)
        if len(text) > MAX_BODY_BYTES:
            raise ValueError(f"a ledger entry of {len(text)} bytes; the limit is {MAX_BODY_BYTES}")
        head, study_head = _link(b"fedward-ledger/1", self._head, text), self._next_study_head(study, text)
        number = len(self.rows) + 1
        self._database.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (number, study, text.decode(), head, study_head)
        )
        self.rows.append(Row(number, study, body, study_head))
        self._head = head

    def study_head(self, study: str) -> bytes:
        """Return the head (32 bytes) of the study's chain; its start, when nothing was entered yet."""
        return next((row.study_hash for row in reversed(self.rows) if row.study == study), study_start(study))

    def refresh(self) -> None:
        """Read and verify what other processes have added."""
        with self._guarded():
            self._catch_up()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _prepare(self) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_IN_WAL}")
        marks = [self._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if marks != [APPLICATION_ID, FORMAT] or self._database.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise LedgerInvalidError(f"{self._path}: not a whole privacy ledger of format {FORMAT}; nothing is spent")

    def _catch_up(self) -> None:
        """Read rows that are new to this object, and check that each continues both chains."""
        seen = len(self.rows)
        last = self._database.execute(
            "SELECT max(number), (SELECT hash FROM entries WHERE number = ?) FROM entries", (seen,)
        ).fetchone()
        if seen and ((last[0] or 0) < seen or last[1] != self._head):
            raise LedgerInvalidError(f"{self._path}: entries that were there have gone or changed; nothing is spent")
        query = "SELECT number, study, body, hash, study_hash FROM entries WHERE number > ? ORDER BY number"
        for number, study, text, stored, stored_study in self._database.execute(query, (seen,)):
            head = _link(b"fedward-ledger/1", self._head, text.encode())
            fits = number == len(self.rows) + 1 and stored == head
            if not fits or stored_study != self._next_study_head(study, text.encode()):
                raise LedgerInvalidError(
                    f"{self._path}: entry {number} was changed or is out of place; nothing is spent"
                )
            self.rows.append(Row(number, study, parsed_json(text), stored_study))
            self._head = head

    def _forget_uncommitted(self) -> None:
        """After an undone transaction read the file again from its first entry."""
        self.rows, self._head = [], START
        self._catch_up()

    def _next_study_head(self, study: str, text: bytes) -> bytes:
        return _link(b"fedward-ledger-study/1", self.study_head(study), text)

    def _compare_anchor(self) -> None:
        """Refuse a ledger that does not contain what the anchor beside it saw (an older copy was restored)."""
        anchor = _anchor(self._path)
        if not anchor.exists():
            raise LedgerInvalidError(f"{anchor}: missing; the ledger cannot show that it is the newest copy")
        number, known = _read_anchor(self._path)
        found = self._database.execute("SELECT hash FROM entries WHERE number = ?", (number,)).fetchone()
        if number and (found is None or found[0] != known):
            raise LedgerInvalidError(
                f"{self._path}: has {len(self.rows)} entries, but {number} were seen before: this is an older or "
                "another copy. Nothing is spent until the newest copy is back"
            )

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn what SQLite and parsers raise into the two errors of a ledger."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if not is_damage(error):
                if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise LedgerBusyError(
                        f"{self._path}: another process holds the privacy ledger; stop it or wait"
                    ) from None
                lacking = of_system(error)  # a full disk is no lost ledger
                raise lacking or LedgerInvalidError(
                    f"{self._path}: the privacy ledger cannot be used ({error})"
                ) from None
            raise LedgerInvalidError(f"{self._path}: the privacy ledger is damaged ({error})") from None
        except (sqlite3.DatabaseError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise LedgerInvalidError(f"{self._path}: the privacy ledger is damaged ({type(error).__name__})") from None


def study_start(study: str) -> bytes:
    """Return where the chain of ``study`` begins: what KEYS carries before the first entry."""
    return hashlib.sha256(b"fedward-ledger-study/1\0" + study.encode()).digest()


def _anchor(path: Path) -> Path:
    return path.with_name(path.name + ".anchor")


def _create_anchor(path: Path) -> None:
    replace_atomically(_anchor(path), 2 * _anchor_slot(0, START), 0o600)


def _write_anchor(path: Path, number: int, head: bytes) -> None:
    """Note the newest entry in the slot that does not hold the one before it.

    Not synced: the entry itself is durable, a killed process loses nothing, and after a loss of power the anchor may be
    seconds older than the ledger, which it allows. Each slot is a sector of its own, so one of them is always whole.
    Raises: LedgerInvalidError; the entry stays.
    """
    try:
        descriptor = os.open(_anchor(path), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            os.pwrite(file.fileno(), _anchor_slot(number, head), number % 2 * _SLOT_BYTES)
    except OSError as error:
        raise of_system(error) or LedgerInvalidError(
            f"{_anchor(path)}: cannot be written ({error.strerror}); nothing more is spent"
        ) from None


def _anchor_slot(number: int, head: bytes) -> bytes:
    return canonical_bytes({"number": number, "hash": head.hex()}).ljust(_SLOT_BYTES - 1) + b"\n"


def _read_anchor(path: Path) -> tuple[int, bytes]:
    """Return the newest entry that was noted. Raises: ValueError, KeyError, TypeError where no slot is whole."""
    content = read_bounded(_anchor(path), 2 * _SLOT_BYTES)
    slots = [content[:_SLOT_BYTES], content[_SLOT_BYTES:]]
    found = []
    for slot in slots:
        with contextlib.suppress(ValueError):
            found.append(parsed_json(slot))
    if not found:
        raise ValueError("no slot of the anchor can be read")
    newest = max(found, key=lambda document: int(document["number"]))
    return int(newest["number"]), bytes.fromhex(newest["hash"])


def _link(purpose: bytes, previous: bytes, body: bytes) -> bytes:
    return hashlib.sha256(purpose + b"\0" + previous + body).digest()
