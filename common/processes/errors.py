"""Errors of processes that share a folder."""

from common.errors import ExitCode, FedwardError


class AlreadyRunningError(FedwardError):
    """Another process works on this folder already; two would undo each other's work."""

    exit_code = ExitCode.ALREADY_RUNNING
