"""Errors of the commands themselves."""

from common.errors import ExitCode, FedwardError


class CheckFailedError(FedwardError):
    """``fedward-site check`` found something that would keep the site from taking part."""

    exit_code = ExitCode.CHECK_FAILED
