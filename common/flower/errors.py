"""Errors of what Flower brings."""

from common.errors import ExitCode, FedwardError


class RuntimeUnsuitableError(FedwardError):
    """The installed Flower is not the one version whose internals this program was tested with."""

    exit_code = ExitCode.RUNTIME_UNSUITABLE


class ContentRefusedError(FedwardError):
    """A Flower message does not have the agreed form; it was dropped unread."""

    exit_code = ExitCode.PROTOCOL_REFUSED
