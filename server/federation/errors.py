"""Errors of the federation folder."""

from common.errors import ExitCode, FedwardError


class FederationInvalidError(FedwardError):
    """The coordinator's federation folder is incomplete, or its settings have an unknown key or a bad value."""

    exit_code = ExitCode.FEDERATION_INVALID


class NobodyToAskError(FedwardError):
    """A person must decide or type something, and this is a script."""

    exit_code = ExitCode.NOT_CONFIRMED
