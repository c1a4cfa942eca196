"""Errors of a hospital's program that several of its rooms share."""

import sqlite3

from common.errors import ExitCode, FedwardError


class TrainerFailedError(FedwardError):
    """The process that trains did not start, ended in the middle of its work, or met a fault."""

    exit_code = ExitCode.TRAINER_FAILED


class MemoryEndedError(TrainerFailedError):
    """There was not enough memory for as many patients side by side; half of them are tried next."""


class TrainingStoppedError(FedwardError):
    """A person of the hospital ended the training under way; the reason is not in the data."""

    exit_code = ExitCode.TRAINER_FAILED


class JournalDamagedError(FedwardError, sqlite3.DatabaseError):
    """The site's journal is no whole journal: it begins again by a person's decision only."""

    exit_code = ExitCode.RECORD_LOST
