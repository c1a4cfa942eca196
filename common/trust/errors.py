"""Errors about who somebody is and what was signed."""

from common.errors import ExitCode, FedwardError


class KeyExposedError(FedwardError):
    """A secret key file is a link, belongs to somebody else, or can be read by others."""

    exit_code = ExitCode.KEY_EXPOSED


class KeyInvalidError(FedwardError):
    """A key file does not hold a key of the expected kind."""

    exit_code = ExitCode.KEY_INVALID


class RosterInvalidError(FedwardError):
    """A roster has duplicate or malformed entries."""

    exit_code = ExitCode.ROSTER_INVALID


class RosterBadSignatureError(FedwardError):
    """The signature does not belong to this roster and this key."""

    exit_code = ExitCode.ROSTER_BAD_SIGNATURE


class EnrolmentInvalidError(FedwardError):
    """An enrolment file is damaged, was changed after it was signed, or is not one at all."""

    exit_code = ExitCode.ENROLMENT_INVALID


class KitInvalidError(FedwardError):
    """A kit is damaged, was changed after it was signed, or its parts contradict each other."""

    exit_code = ExitCode.KIT_INVALID


class ReleaseInvalidError(FedwardError):
    """A released model was changed, is incomplete, or was signed by another coordinator."""

    exit_code = ExitCode.RELEASE_INVALID


class ChainBrokenError(FedwardError):
    """A hash-chained record (outbox, audit log) does not verify: it was changed, cut or damaged."""

    exit_code = ExitCode.CHAIN_BROKEN
