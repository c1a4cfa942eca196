"""Errors of training pages."""

from common.errors import ExitCode, FedwardError


class NoiseError(FedwardError):
    """Privacy noise or sampling was asked for in a way that would not protect; nothing was released."""

    exit_code = ExitCode.NOISE_INVALID
