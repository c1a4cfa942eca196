"""Errors of a study at the coordinator, which its folder, its model and its run share."""

from common.errors import ExitCode, FedwardError


class StudyFolderInvalidError(FedwardError):
    """The coordinator's study folder is incomplete, damaged, or its parts belong to different studies."""

    exit_code = ExitCode.RUN_INVALID


class StudyStoppedError(FedwardError):
    """A study ended before its last round: no cohort, no attempt left, or sums that cannot be right."""

    exit_code = ExitCode.STUDY_STOPPED
