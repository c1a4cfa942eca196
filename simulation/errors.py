"""Errors of simulated studies."""

from common.errors import ExitCode, FedwardError


class ScenarioInvalidError(FedwardError):
    """A simulation was asked for with settings that contradict each other or cannot be made."""

    exit_code = ExitCode.SCENARIO_INVALID


class RunInvalidError(FedwardError):
    """The folder of a simulated run is incomplete or damaged, or belongs to another scenario."""

    exit_code = ExitCode.RUN_INVALID


class RehearsalError(FedwardError):
    """A step of a rehearsal did not do what it should."""

    exit_code = ExitCode.REHEARSAL_FAILED
