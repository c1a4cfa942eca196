"""Errors of features."""

from common.errors import ExitCode, FedwardError


class FeaturesMissingError(FedwardError):
    """A study reads features that are not computed yet."""

    exit_code = ExitCode.FEATURES_MISSING
