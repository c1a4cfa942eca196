"""Errors of training at a hospital, which the agent, the trainer and the gradient engines share."""

from common.errors import ExitCode, FedwardError


class TrainerFailedError(FedwardError):
    """The process that trains did not start, ended in the middle of its work, or met a fault."""

    exit_code = ExitCode.TRAINER_FAILED


class TrainingStoppedError(FedwardError):
    """A person of the hospital ended the training under way; the reason is not in the data."""

    exit_code = ExitCode.TRAINER_FAILED
