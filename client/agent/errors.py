"""Errors of the agent and its control socket."""

from common.errors import ExitCode, FedwardError


class AgentUnavailableError(FedwardError):
    """The agent's control socket cannot be made, is not there, or nobody answers on it."""

    exit_code = ExitCode.AGENT_UNAVAILABLE
