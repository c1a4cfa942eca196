"""Errors of a study plan."""

from common.errors import ExitCode, FedwardError


class PlanInvalidError(FedwardError):
    """A value of the study plan has the wrong type or lies outside its bounds."""

    exit_code = ExitCode.PLAN_INVALID


class PlanUnknownKeyError(FedwardError):
    """The study plan has a key that does not exist."""

    exit_code = ExitCode.PLAN_UNKNOWN_KEY


class PlanWeakPrivacyError(FedwardError):
    """The study plan promises more privacy than its settings buy, or too little to be allowed."""

    exit_code = ExitCode.PLAN_WEAK_PRIVACY


class PlanWeakThresholdError(FedwardError):
    """A threshold of secure aggregation lies below the bound that keeps a single update hidden."""

    exit_code = ExitCode.PLAN_WEAK_THRESHOLD


class PlanUnsignedError(FedwardError):
    """The study plan has no signature."""

    exit_code = ExitCode.PLAN_UNSIGNED


class PlanBadSignatureError(FedwardError):
    """The signature does not belong to this study plan and this key."""

    exit_code = ExitCode.PLAN_BAD_SIGNATURE
