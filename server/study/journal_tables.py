"""The tables of a study's journal (``journal``), and the triggers that let nobody change a row."""

from typing import Final

_TABLES: Final = {
    "study": "one INTEGER PRIMARY KEY CHECK (one = 1), plan_digest BLOB NOT NULL, started_unix_s REAL NOT NULL",
    "attempts": "attempt INTEGER PRIMARY KEY, phase INTEGER NOT NULL, round_number INTEGER NOT NULL,"
    " cohort TEXT NOT NULL, model_digest BLOB NOT NULL, unix_s REAL NOT NULL",
    "aborts": "attempt INTEGER PRIMARY KEY REFERENCES attempts, code INTEGER NOT NULL, sentence TEXT NOT NULL,"
    " suspects TEXT NOT NULL, unix_s REAL NOT NULL",
    "opened": "attempt INTEGER PRIMARY KEY REFERENCES attempts, participants TEXT NOT NULL, dropped TEXT NOT NULL,"
    " sum_digest BLOB NOT NULL, session_id BLOB NOT NULL, survivors_digest BLOB NOT NULL,"
    " transcript_digest BLOB NOT NULL, meta BLOB NOT NULL, unix_s REAL NOT NULL",
    "applied": "attempt INTEGER PRIMARY KEY REFERENCES opened, divisor REAL NOT NULL, checkpoint_sha256 TEXT NOT NULL,"
    " model_digest BLOB NOT NULL, finished INTEGER NOT NULL, unix_s REAL NOT NULL",
    "medians": "attempt INTEGER PRIMARY KEY REFERENCES opened, divisor REAL NOT NULL,"
    " applied INTEGER NOT NULL REFERENCES applied",
    "answers": "attempt INTEGER NOT NULL REFERENCES attempts, asked TEXT NOT NULL, site TEXT NOT NULL,"
    " outcome TEXT NOT NULL, bytes_to_site INTEGER NOT NULL, bytes_from_site INTEGER NOT NULL, seconds REAL NOT NULL,"
    " PRIMARY KEY (attempt, asked, site)",
    "refusals": "attempt INTEGER NOT NULL REFERENCES attempts, site TEXT NOT NULL, stage TEXT NOT NULL,"
    " code INTEGER NOT NULL, about TEXT NOT NULL, PRIMARY KEY (attempt, site)",
    "heads": "attempt INTEGER NOT NULL REFERENCES attempts, site TEXT NOT NULL, head BLOB NOT NULL,"
    " PRIMARY KEY (attempt, site)",
    "forwarded": "attempt INTEGER PRIMARY KEY REFERENCES attempts",
    "unsound": "attempt INTEGER PRIMARY KEY REFERENCES attempts, summed TEXT NOT NULL",
    "suspicions": "attempt INTEGER PRIMARY KEY REFERENCES attempts, kind TEXT NOT NULL, groups TEXT NOT NULL,"
    " until_attempt INTEGER NOT NULL, sentence TEXT NOT NULL, unix_s REAL NOT NULL",
}


ALL_FORWARDED: Final = "INSERT INTO forwarded SELECT attempt FROM attempts"


def schema() -> list[str]:
    """Return the statements that make every table that is missing, and its triggers."""
    tables = [f"CREATE TABLE IF NOT EXISTS {name} ({columns}) STRICT" for name, columns in _TABLES.items()]
    triggers = [
        f"CREATE TRIGGER IF NOT EXISTS {name}_{event.lower()} BEFORE {event} ON {name}"
        " BEGIN SELECT raise(ABORT, 'the journal is append-only'); END"
        for name in _TABLES
        for event in ("UPDATE", "DELETE")
    ]
    return tables + triggers
