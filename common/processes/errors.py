"""Errors of processes that share a folder."""

from common.errors import ExitCode, FedwardError


class AlreadyRunningError(FedwardError):
    """Another process works on this folder already; two would undo each other's work."""

    exit_code = ExitCode.ALREADY_RUNNING


class RunsAsRootError(FedwardError):
    """A program that needs no right of root was started as root."""

    exit_code = ExitCode.RUNS_AS_ROOT
