"""Errors of scans, labels and the cache. What is wrong with one file has codes instead (``reject``)."""

from common.errors import ExitCode, FedwardError


class NothingUsableError(FedwardError):
    """After an ingest the cache holds no record that a study could use."""

    exit_code = ExitCode.NOTHING_USABLE


class LabelsInvalidError(FedwardError):
    """The label table has the wrong form, or a spreadsheet has damaged it; nothing was labelled."""

    exit_code = ExitCode.LABELS_INVALID


class PersonsInvalidError(FedwardError):
    """The table of persons has the wrong form, or a decision about persons lacks a part; nobody was merged."""

    exit_code = ExitCode.PERSONS_INVALID


class CacheInvalidError(FedwardError):
    """The cache is missing, damaged, busy, or made with another secret or for other settings."""

    exit_code = ExitCode.CACHE_INVALID


class WorkerStartError(FedwardError):
    """A worker process that reads scans could not be started."""

    exit_code = ExitCode.WORKER_FAILED
