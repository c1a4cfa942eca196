"""The error tree: each failure a person can meet has one class, one exit code, and one sentence.

An error says what happened, the value, the limit, and what to do. Nothing here ever carries a patient identifier,
a path inside the scan folder, or text from the network: such messages are fixed codes (``common.refusal`` style),
because exception text travels further than one thinks.

``docs/exit-codes.md`` has one heading for each member of ``ExitCode``; a test compares the two.
"""

from collections.abc import Iterator
from enum import IntEnum, unique
from typing import ClassVar


@unique
class ExitCode(IntEnum):
    """What a command's exit status means. 0 and 2 follow the shell's custom; the rest are ours."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    # files (10-19)
    FILE_UNREADABLE = 10
    FILE_TOO_LARGE = 11
    NOT_UTF8 = 12
    NOT_TOML = 13
    OUTPUT_EXISTS = 14
    # study plan (20-29)
    PLAN_INVALID = 20
    PLAN_UNKNOWN_KEY = 21
    PLAN_WEAK_PRIVACY = 22
    PLAN_WEAK_THRESHOLD = 23
    PLAN_UNSIGNED = 24
    PLAN_BAD_SIGNATURE = 25
    # keys and rosters (30-39)
    KEY_EXPOSED = 30
    KEY_INVALID = 31
    ROSTER_INVALID = 32
    ROSTER_BAD_SIGNATURE = 33
    ENROLMENT_INVALID = 34
    KIT_INVALID = 35
    RELEASE_INVALID = 36
    # scans (40-49)
    NOTHING_USABLE = 40
    LABELS_INVALID = 41
    CACHE_INVALID = 42
    WORKER_FAILED = 43
    # training and privacy (50-59)
    BUDGET_EXHAUSTED = 50
    LEDGER_INVALID = 51
    NETWORK_UNSUITABLE = 52
    WEIGHTS_INVALID = 53
    ACCOUNTING_INVALID = 54
    LEDGER_BUSY = 55
    NOISE_INVALID = 56
    TRAINER_FAILED = 57
    # secure aggregation (60-69)
    PROTOCOL_REFUSED = 60
    PROTOCOL_ABORTED = 61
    # simulation (70-79)
    SCENARIO_INVALID = 70
    RUN_INVALID = 71
    STUDY_STOPPED = 72
    REHEARSAL_FAILED = 73
    # deployment (80-89)
    NOT_ENROLLED = 80
    FEDERATION_INVALID = 81
    POLICY_REFUSED = 82
    CHAIN_BROKEN = 83
    POLICY_INVALID = 84
    OUTBOX_REFUSED = 85
    SITE_CONFIG_INVALID = 86
    NOT_CONFIRMED = 87
    CHECK_FAILED = 88
    RUNTIME_UNSUITABLE = 89
    # processes (90-99)
    ALREADY_RUNNING = 90
    AGENT_UNAVAILABLE = 91


class FedwardError(Exception):
    """A failure with a sentence for the person at the keyboard.

    Subclasses set ``exit_code``; ``str(error)`` is the sentence a command prints.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL


class FileUnreadableError(FedwardError):
    """A file is missing, is not a regular file, or may not be read."""

    exit_code = ExitCode.FILE_UNREADABLE


class FileTooLargeError(FedwardError):
    """A file is larger than its limit; it was not read."""

    exit_code = ExitCode.FILE_TOO_LARGE


class NotUtf8Error(FedwardError):
    """A text file is not valid UTF-8."""

    exit_code = ExitCode.NOT_UTF8


class NotTomlError(FedwardError):
    """A file is not valid TOML."""

    exit_code = ExitCode.NOT_TOML


class OutputExistsError(FedwardError):
    """A file or folder to be written exists already; it was left alone."""

    exit_code = ExitCode.OUTPUT_EXISTS


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


class NetworkUnsuitableError(FedwardError):
    """A network cannot be built, or must not be trained privately."""

    exit_code = ExitCode.NETWORK_UNSUITABLE


class WeightsInvalidError(FedwardError):
    """Weights do not fit the network: wrong digest, layout, shape, or a value that is not finite."""

    exit_code = ExitCode.WEIGHTS_INVALID


class VectorRefusedError(FedwardError):
    """A vector, or what is agreed about it, breaks the bounds that make its masked sum exact."""

    exit_code = ExitCode.PROTOCOL_REFUSED


class AccountingError(FedwardError):
    """A privacy event or target lies outside what can be accounted for."""

    exit_code = ExitCode.ACCOUNTING_INVALID


class BudgetExhaustedError(FedwardError):
    """The next step would pass the privacy ceiling of this site; it was not taken."""

    exit_code = ExitCode.BUDGET_EXHAUSTED


class LedgerInvalidError(FedwardError):
    """The privacy ledger is missing, damaged, changed or older than what was signed; nothing may be spent."""

    exit_code = ExitCode.LEDGER_INVALID


class LedgerBusyError(FedwardError):
    """Another process holds the privacy ledger."""

    exit_code = ExitCode.LEDGER_BUSY


class ScenarioInvalidError(FedwardError):
    """A simulation was asked for with settings that contradict each other or cannot be made."""

    exit_code = ExitCode.SCENARIO_INVALID


class NothingUsableError(FedwardError):
    """After an ingest the cache holds no record that a study could use."""

    exit_code = ExitCode.NOTHING_USABLE


class LabelsInvalidError(FedwardError):
    """The label table has the wrong form, or a spreadsheet has damaged it; nothing was labelled."""

    exit_code = ExitCode.LABELS_INVALID


class CacheInvalidError(FedwardError):
    """The cache is missing, damaged, busy, or made with another secret or for other settings."""

    exit_code = ExitCode.CACHE_INVALID


class WorkerStartError(FedwardError):
    """A worker process that reads scans could not be started."""

    exit_code = ExitCode.WORKER_FAILED


class ChainBrokenError(FedwardError):
    """A hash-chained record (outbox, audit log) does not verify: it was changed, cut or damaged."""

    exit_code = ExitCode.CHAIN_BROKEN


class PolicyRefusedError(FedwardError):
    """The site's own policy does not allow what the plan asks."""

    exit_code = ExitCode.POLICY_REFUSED


class NotEnrolledError(FedwardError):
    """The site has no identity, roster, policy or approved plan for what was asked."""

    exit_code = ExitCode.NOT_ENROLLED


class PolicyInvalidError(FedwardError):
    """The site's policy file has an unknown key or a value out of bounds."""

    exit_code = ExitCode.POLICY_INVALID


class FederationInvalidError(FedwardError):
    """The coordinator's federation folder is incomplete, or its settings have an unknown key or a bad value."""

    exit_code = ExitCode.FEDERATION_INVALID


class CheckFailedError(FedwardError):
    """``fedward-site check`` found something that would keep the site from taking part."""

    exit_code = ExitCode.CHECK_FAILED


class NotConfirmedError(FedwardError):
    """A person had to confirm something and did not, or there was nobody to ask; nothing was done."""

    exit_code = ExitCode.NOT_CONFIRMED


class SiteConfigInvalidError(FedwardError):
    """The site's settings have an unknown key or a value out of bounds."""

    exit_code = ExitCode.SITE_CONFIG_INVALID


class AlreadyRunningError(FedwardError):
    """Another process works on this folder already; two would undo each other's work."""

    exit_code = ExitCode.ALREADY_RUNNING


class AgentUnavailableError(FedwardError):
    """The agent's control socket cannot be made, is not there, or nobody answers on it."""

    exit_code = ExitCode.AGENT_UNAVAILABLE


class RuntimeUnsuitableError(FedwardError):
    """The installed Flower is not the one version whose internals this program was tested with."""

    exit_code = ExitCode.RUNTIME_UNSUITABLE


class OutboxRefusedError(FedwardError):
    """Something tried to leave the site that is not on the outbox's list, or is too large."""

    exit_code = ExitCode.OUTBOX_REFUSED


class ContentRefusedError(FedwardError):
    """A Flower message does not have the agreed form; it was dropped unread."""

    exit_code = ExitCode.PROTOCOL_REFUSED


class StudyFolderInvalidError(FedwardError):
    """The coordinator's study folder is incomplete, damaged, or its parts belong to different studies."""

    exit_code = ExitCode.RUN_INVALID


class RunInvalidError(FedwardError):
    """The folder of a simulated run is incomplete or damaged, or belongs to another scenario."""

    exit_code = ExitCode.RUN_INVALID


class RehearsalError(FedwardError):
    """A step of a rehearsal did not do what it should."""

    exit_code = ExitCode.REHEARSAL_FAILED


class StudyStoppedError(FedwardError):
    """A study ended before its last round: no cohort, no attempt left, or sums that cannot be right."""

    exit_code = ExitCode.STUDY_STOPPED


class NoiseError(FedwardError):
    """Privacy noise or sampling was asked for in a way that would not protect; nothing was released."""

    exit_code = ExitCode.NOISE_INVALID


class TrainerFailedError(FedwardError):
    """The process that trains did not start, ended in the middle of its work, or met a fault."""

    exit_code = ExitCode.TRAINER_FAILED


class TrainingStoppedError(FedwardError):
    """A person of the hospital ended the training under way; the reason is not in the data."""

    exit_code = ExitCode.TRAINER_FAILED


def error_of(code: int, sentence: str) -> FedwardError | None:
    """Return the error that another process of ours ended with, by its exit code; None for a code that has none."""
    return next((kind(sentence) for kind in _kinds(FedwardError) if int(kind.exit_code) == code), None)


def _kinds(kind: type[FedwardError]) -> Iterator[type[FedwardError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _kinds(child)
