"""Errors of networks and their weights."""

from common.errors import ExitCode, FedwardError


class NetworkUnsuitableError(FedwardError):
    """A network cannot be built, or must not be trained privately."""

    exit_code = ExitCode.NETWORK_UNSUITABLE


class WeightsInvalidError(FedwardError):
    """Weights do not fit the network: wrong digest, layout, shape, or a value that is not finite."""

    exit_code = ExitCode.WEIGHTS_INVALID
