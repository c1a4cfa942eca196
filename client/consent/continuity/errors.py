"""Errors of lost records."""

from common.errors import ExitCode, FedwardError


class RecordLostError(FedwardError):
    """A file that holds a promise is missing or older than others show; the site takes part in nothing."""

    exit_code = ExitCode.RECORD_LOST


class StudyEndedError(FedwardError):
    """A study ended at this site for good, because a file that holds its promise began again."""

    exit_code = ExitCode.RECORD_LOST
