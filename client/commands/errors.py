"""Errors of the commands themselves."""

from common.errors import ExitCode, FedwardError


class CheckFailedError(FedwardError):
    """``fedward-site check`` found something that would keep the site from taking part."""

    exit_code = ExitCode.CHECK_FAILED


class NotConfirmedError(FedwardError):
    """A person had to confirm something and did not, or there was nobody to ask; nothing was done."""

    exit_code = ExitCode.NOT_CONFIRMED
