"""Errors of what this hospital allows."""

from common.errors import ExitCode, FedwardError


class PolicyRefusedError(FedwardError):
    """The site's own policy does not allow what the plan asks."""

    exit_code = ExitCode.POLICY_REFUSED


class PolicyInvalidError(FedwardError):
    """The site's policy file has an unknown key or a value out of bounds."""

    exit_code = ExitCode.POLICY_INVALID


class NotConfirmedError(FedwardError):
    """A person had to confirm something and did not, or there was nobody to ask; nothing was done."""

    exit_code = ExitCode.NOT_CONFIRMED
