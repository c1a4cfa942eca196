"""The error tree: each failure a person can meet has one class, one exit code, and one sentence.

An error says what happened, the value, the limit, and what to do. Nothing here ever carries a patient identifier,
a path inside the scan folder, or text from the network: such messages are fixed codes (``common.secagg.refusals``),
because exception text travels further than one thinks.

This file has the table of codes and what every room needs; each room keeps its own sentences in its ``errors``.
``docs/exit-codes.md`` has one heading for each member of ``ExitCode``; a test compares the two.
"""

import errno
from collections.abc import Iterator
from enum import IntEnum, unique
from typing import ClassVar


@unique
class ExitCode(IntEnum):
    """What a command's exit status means. 0 and 2 follow the shell's custom; the rest are ours."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    # files (10-19)
    FILE_UNREADABLE = 10
    FILE_TOO_LARGE = 11
    NOT_UTF8 = 12
    NOT_TOML = 13
    OUTPUT_EXISTS = 14
    # study plan (20-29)
    PLAN_INVALID = 20
    PLAN_UNKNOWN_KEY = 21
    PLAN_WEAK_PRIVACY = 22
    PLAN_WEAK_THRESHOLD = 23
    PLAN_UNSIGNED = 24
    PLAN_BAD_SIGNATURE = 25
    # keys and rosters (30-39)
    KEY_EXPOSED = 30
    KEY_INVALID = 31
    ROSTER_INVALID = 32
    ROSTER_BAD_SIGNATURE = 33
    ENROLMENT_INVALID = 34
    KIT_INVALID = 35
    RELEASE_INVALID = 36
    # scans (40-49)
    NOTHING_USABLE = 40
    LABELS_INVALID = 41
    CACHE_INVALID = 42
    WORKER_FAILED = 43
    PERSONS_INVALID = 44
    FEATURES_MISSING = 45
    # training and privacy (50-59)
    BUDGET_EXHAUSTED = 50
    LEDGER_INVALID = 51
    NETWORK_UNSUITABLE = 52
    WEIGHTS_INVALID = 53
    ACCOUNTING_INVALID = 54
    LEDGER_BUSY = 55
    NOISE_INVALID = 56
    TRAINER_FAILED = 57
    RECORD_LOST = 58
    ENCODER_INVALID = 59
    # secure aggregation (60-69)
    PROTOCOL_REFUSED = 60
    PROTOCOL_ABORTED = 61
    # simulation (70-79)
    SCENARIO_INVALID = 70
    RUN_INVALID = 71
    STUDY_STOPPED = 72
    REHEARSAL_FAILED = 73
    # deployment (80-89)
    NOT_ENROLLED = 80
    FEDERATION_INVALID = 81
    POLICY_REFUSED = 82
    CHAIN_BROKEN = 83
    POLICY_INVALID = 84
    OUTBOX_REFUSED = 85
    SITE_CONFIG_INVALID = 86
    NOT_CONFIRMED = 87
    CHECK_FAILED = 88
    RUNTIME_UNSUITABLE = 89
    # processes (90-99)
    ALREADY_RUNNING = 90
    AGENT_UNAVAILABLE = 91
    PORT_TAKEN = 92
    DISK_FULL = 93
    RIGHT_MISSING = 94
    RUNS_AS_ROOT = 95


class FedwardError(Exception):
    """A failure with a sentence for the person at the keyboard.

    Subclasses set ``exit_code``; ``str(error)`` is the sentence a command prints.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL


class FileUnreadableError(FedwardError):
    """A file is missing, is not a regular file, or may not be read."""

    exit_code = ExitCode.FILE_UNREADABLE


class FileTooLargeError(FedwardError):
    """A file is larger than its limit; it was not read."""

    exit_code = ExitCode.FILE_TOO_LARGE


class NotUtf8Error(FedwardError):
    """A text file is not valid UTF-8."""

    exit_code = ExitCode.NOT_UTF8


class NotTomlError(FedwardError):
    """A file is not valid TOML."""

    exit_code = ExitCode.NOT_TOML


class OutputExistsError(FedwardError):
    """A file or folder to be written exists already; it was left alone."""

    exit_code = ExitCode.OUTPUT_EXISTS


class PortTakenError(FedwardError):
    """Another program listens on a port that is needed."""

    exit_code = ExitCode.PORT_TAKEN


class DiskFullError(FileUnreadableError):
    """The disk, or this user's part of it, is full; what was to be written was not."""

    exit_code = ExitCode.DISK_FULL


class RightMissingError(FileUnreadableError):
    """The system does not let this user read or write something."""

    exit_code = ExitCode.RIGHT_MISSING


def of_system(error: BaseException) -> FedwardError | None:
    """Return the sentence for what the machine lacks (space, a right, a port); None for any other error.

    Without a file's name, which may be a patient's; `--debug` shows it to whoever is at the keyboard.
    """
    number = error.errno if isinstance(error, OSError) else None
    words = str(error) if type(error).__module__ == "sqlite3" else ""
    if number in {errno.ENOSPC, errno.EDQUOT} or "disk is full" in words:
        return DiskFullError("the disk is full: nothing more was written, what was there is whole; free some space")
    if "disk I/O error" in words:  # SQLite says so too where it has no room for the file of its index
        return DiskFullError("the disk cannot be written: it is full or broken; free some space, see the system's log")
    if number in {errno.EACCES, errno.EPERM, errno.EROFS} or "readonly database" in words or "unable to open" in words:
        return RightMissingError(
            "the system does not let this user read or write a file that is needed; run as the user who owns the "
            "folder, see its rights and whether there is room (--debug before the command shows which file)"
        )
    if number == errno.EADDRINUSE:
        return PortTakenError("a port that is needed is taken by another program; `ss -ltnp` shows who has it")
    return None


def error_of(code: int, sentence: str, *, name: str = "") -> FedwardError | None:
    """Return the error that another process of ours ended with, by its exit code; None for a code that has none.

    ``name``: of its class, where the other process says it; of several classes with that code it is then this one.
    Its class is the one with that code if this process has loaded it (whoever catches a class has), otherwise a bare
    error with the same code: the sentence and the exit status are the other process's either way.
    """
    if code in (ExitCode.OK, ExitCode.INTERNAL, ExitCode.USAGE) or code not in set(map(int, ExitCode)):
        return None
    kinds = [kind for kind in _kinds(FedwardError) if kind.exit_code == code]
    known = next((kind for kind in kinds if kind.__name__ == name), kinds[0] if kinds else None)
    return known(sentence) if known is not None else _foreign(ExitCode(code))(sentence)


def _foreign(code: ExitCode) -> type[FedwardError]:
    class ForeignError(FedwardError):
        """An error of a room that this process has not loaded."""

        exit_code = code

    return ForeignError


def _kinds(kind: type[FedwardError]) -> Iterator[type[FedwardError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _kinds(child)
