"""Errors of the privacy ledger."""

from common.errors import ExitCode, FedwardError


class BudgetExhaustedError(FedwardError):
    """The next step would pass the privacy ceiling of this site; it was not taken."""

    exit_code = ExitCode.BUDGET_EXHAUSTED


class LedgerInvalidError(FedwardError):
    """The privacy ledger is missing, damaged, changed or older than what was signed; nothing may be spent."""

    exit_code = ExitCode.LEDGER_INVALID


class LedgerBusyError(FedwardError):
    """Another process holds the privacy ledger."""

    exit_code = ExitCode.LEDGER_BUSY


class PromiseSpentError(BudgetExhaustedError):
    """The next step would cost a stratum more than the plan promised its patients; it was not taken."""


class StrataChangedError(FedwardError):
    """The cache gives a running study other patients or other strata than it began with; nothing is trained."""

    exit_code = ExitCode.CACHE_INVALID
