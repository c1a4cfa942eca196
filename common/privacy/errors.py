"""Errors of the accountants."""

from common.errors import ExitCode, FedwardError


class AccountingError(FedwardError):
    """A privacy event or target lies outside what can be accounted for."""

    exit_code = ExitCode.ACCOUNTING_INVALID
