"""Errors of the site folder."""

from common.errors import ExitCode, FedwardError


class NotEnrolledError(FedwardError):
    """The site has no identity, roster, policy or approved plan for what was asked."""

    exit_code = ExitCode.NOT_ENROLLED


class SiteConfigInvalidError(FedwardError):
    """The site's settings have an unknown key or a value out of bounds."""

    exit_code = ExitCode.SITE_CONFIG_INVALID
