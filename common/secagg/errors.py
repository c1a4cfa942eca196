"""Errors of the arithmetic under the masks; what a party refuses in the protocol has codes (``refusals``)."""

from common.errors import ExitCode, FedwardError


class VectorRefusedError(FedwardError):
    """A vector, or what is agreed about it, breaks the bounds that make its masked sum exact."""

    exit_code = ExitCode.PROTOCOL_REFUSED
