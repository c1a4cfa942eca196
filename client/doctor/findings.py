"""A finding: what was looked at, whether it is in order, and otherwise what to do."""

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from common.errors import FedwardError, of_system


class Level(StrEnum):
    """How much a finding matters. STOP: the site cannot take part like this. ADVICE: it can, but look at it."""

    OK = "ok"
    ADVICE = "advice"
    STOP = "stop"


@dataclass(frozen=True)
class Finding:
    """``name``: what was looked at; ``text``: what was found; ``remedy``: what to do, empty when in order."""

    name: str
    level: Level
    text: str
    remedy: str = ""


def fine(name: str, text: str) -> Finding:
    """Return a finding that is in order."""
    return Finding(name, Level.OK, text)


def advice(name: str, text: str, remedy: str) -> Finding:
    """Return a finding that does not stop the site."""
    return Finding(name, Level.ADVICE, text, remedy)


def stop(name: str, text: str, remedy: str) -> Finding:
    """Return a finding that stops the site."""
    return Finding(name, Level.STOP, text, remedy)


def examined(name: str, look: Callable[[], Finding | Iterable[Finding]]) -> list[Finding]:
    """Look, and turn an error into a finding: its sentence says what happened and what to do."""
    try:
        found = look()
        return [found] if isinstance(found, Finding) else list(found)
    except FedwardError as error:
        return [stop(name, str(error), "see the sentence before, and docs/exit-codes.md")]
    except sqlite3.Error as error:
        lacking = of_system(error)
        text = str(lacking) if lacking else f"a database cannot be used ({type(error).__name__})"
        return [stop(name, text, "check free space, rights and mounts; put the newest copy back if it is damaged")]
    except OSError as error:
        return [stop(name, f"the operating system refuses ({error.strerror})", "check rights, mounts and free space")]
