"""What may be said of an unexpected exception: its kind and its place in our code, never its text; and of SQLite's.

Texts of exceptions hold values, and values come from scans, label tables and the network.
"""

import sqlite3
from pathlib import Path
from typing import Final

_DAMAGE: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})


def fault_without_text(error: BaseException) -> str:
    """Return for example ``KeyError at training.py:120``: the innermost frame of the exception's traceback."""
    place = "an unknown place"
    trace = error.__traceback__
    while trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}"


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether SQLite met a file that is no whole database of ours, rather than a full disk, a right or a lock.

    Only for files whose tables our own statements fit: a missing table or column (SQLITE_ERROR) is damage then. What
    Python itself raises for a text that is no UTF-8 has no code.
    """
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.DatabaseError) and (code is None or code & 0xFF in _DAMAGE)
