"""The other end of the agent's socket: what commands and the status page say to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc

from client.agent.errors import AgentUnavailableError
from common.control import site_control_pb2 as api
from common.control import site_control_pb2_grpc as service
from common.errors import FedwardError, error_of

TIMEOUT_S: Final = 20.0  # approving a plan checks everything again, which takes seconds
EXIT_CODE_KEY: Final = "fedward-exit-code"  # trailing metadata of a refusal


class ControlClient:
    """Calls to the agent that listens on ``socket``; use it as a context manager.

    Every call raises AgentUnavailableError when nobody answers, and the FedwardError of the agent's refusal otherwise.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel = grpc.insecure_channel(f"unix:{socket.resolve()}")
        self._stub = service.SiteControlStub(self._channel)  # type: ignore[no-untyped-call] # generated

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def status(self) -> api.StatusReply:
        """Return what the agent does, and what is approved."""
        with self._translated():
            reply: api.StatusReply = self._stub.Status(api.StatusRequest(), timeout=TIMEOUT_S)
            return reply

    def approve(self, plan: bytes, signature: bytes, *, approver: str) -> str:
        """Approve a plan in the name of a person; return its digest."""
        request = api.ApproveRequest(plan=plan, signature=signature, approver=approver)
        with self._translated():
            reply: api.ApproveReply = self._stub.Approve(request, timeout=TIMEOUT_S)
            return reply.plan_digest

    def withdraw_approval(self, plan_digest: str, *, approver: str) -> None:
        """Take an approval back in the name of a person."""
        request = api.WithdrawApprovalRequest(plan_digest=plan_digest, approver=approver)
        with self._translated():
            self._stub.WithdrawApproval(request, timeout=TIMEOUT_S)

    def pause(self, *, person: str) -> None:
        """Take part in nothing from now on."""
        with self._translated():
            self._stub.Pause(api.PauseRequest(person=person), timeout=TIMEOUT_S)

    def resume(self, *, person: str) -> None:
        """Take part again."""
        with self._translated():
            self._stub.Resume(api.ResumeRequest(person=person), timeout=TIMEOUT_S)

    def watch(self) -> Iterator[api.ProgressEvent]:
        """Yield the last event, then every new one, until the agent ends."""
        with self._translated():
            yield from self._stub.WatchProgress(api.WatchProgressRequest())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise _known(error, self._socket) from None


def _known(error: grpc.RpcError, socket: Path) -> FedwardError:
    """Return the error of ours that a failed call means."""
    code = str(dict(error.trailing_metadata() or ()).get(EXIT_CODE_KEY, ""))
    if code.isascii() and code.isdecimal() and (known := error_of(int(code), error.details() or "")):
        return known
    status = error.code().name.lower()
    return AgentUnavailableError(f"{socket}: the agent does not answer ({status}); start it with `fedward-site up`")
