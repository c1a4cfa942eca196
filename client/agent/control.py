"""The agent's control plane: gRPC on a Unix socket that only its owner can open.

Every call does what the command of the same name does, through the same functions, and the files of the site folder
remain the truth: the agent looks at them before each message. A refusal carries our sentence and our exit code.
What protects it: the socket's mode 0600 in a folder of mode 0700 (owner's processes only), and no port at all.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import BoundedSemaphore
from typing import Final, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from client.agent.control_client import EXIT_CODE_KEY
from client.agent.control_socket import require_socket_path
from client.agent.errors import AgentUnavailableError
from client.agent.progress import ProgressFeed
from client.agent.task_loop import TaskLoop
from client.consent import approval, pausing
from client.consent.open_studies import OpenStudies
from client.installation.folder import SiteFolder
from common.control import site_control_pb2 as api
from common.control import site_control_pb2_grpc as service
from common.errors import ExitCode, FedwardError
from common.faults import fault_without_text
from common.files import write_new
from common.plan.plan import StudyPlan
from common.plan.shape import ShapesOf
from common.plan.shapes_here import shapes_here
from common.plan.signing import signature_path
from common.terminal import fedward_version

MAX_REQUEST_BYTES: Final = 2 << 20

SERVICE: Final = "fedward.site.v1.SiteControl"
SUPERNODE: Final = "supernode"  # health: whether tasks can come
_WATCHERS: Final = 4
_THREADS: Final = _WATCHERS + 4

_log = logging.getLogger("fedward.agent")
Reply = TypeVar("Reply")


class SiteControl(service.SiteControlServicer):
    """The calls of ``site_control.proto`` for one site."""

    def __init__(
        self, folder: SiteFolder, site: str, feed: ProgressFeed, loop: TaskLoop, shapes_of: ShapesOf = shapes_here
    ) -> None:
        self._folder, self._site, self._feed, self._loop = folder, site, feed, loop
        self._studies, self._shapes_of = OpenStudies(folder, shapes_of), shapes_of
        self._started_at_s = int(time.time())
        self._free = BoundedSemaphore(_WATCHERS)

    def Status(self, request: api.StatusRequest, context: grpc.ServicerContext) -> api.StatusReply:  # noqa: N802
        """What the agent does, and what is approved here."""
        del request
        return _answered(context, self._status)

    def Approve(self, request: api.ApproveRequest, context: grpc.ServicerContext) -> api.ApproveReply:  # noqa: N802
        """Approve the plan in the request, after every check."""
        return _answered(context, lambda: self._approve(request))

    def WithdrawApproval(  # noqa: N802
        self, request: api.WithdrawApprovalRequest, context: grpc.ServicerContext
    ) -> api.WithdrawApprovalReply:
        """Take an approval back."""

        def work() -> api.WithdrawApprovalReply:
            approval.withdraw_approval(self._folder, request.plan_digest, approver=request.approver)
            return api.WithdrawApprovalReply()

        return _answered(context, work)

    def Pause(self, request: api.PauseRequest, context: grpc.ServicerContext) -> api.PauseReply:  # noqa: N802
        """Take part in nothing from now on."""

        def work() -> api.PauseReply:
            if pausing.pause(self._folder, person=request.person):
                self._feed.publish(api.Step.STEP_PAUSED)
            return api.PauseReply()

        return _answered(context, work)

    def Resume(self, request: api.ResumeRequest, context: grpc.ServicerContext) -> api.ResumeReply:  # noqa: N802
        """Take part again."""

        def work() -> api.ResumeReply:
            if pausing.resume(self._folder, person=request.person):
                self._feed.publish(api.Step.STEP_RESUMED)
            return api.ResumeReply()

        return _answered(context, work)

    def WatchProgress(  # noqa: N802
        self, request: api.WatchProgressRequest, context: grpc.ServicerContext
    ) -> Iterator[api.ProgressEvent]:
        """Stream events until the watcher leaves or the agent ends."""
        del request
        if not self._free.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_WATCHERS} watch already, and that is the limit")
        try:
            for event in self._feed.follow():
                if not context.is_active():
                    return
                if event is not None:
                    yield event
        finally:
            self._free.release()

    def _status(self) -> api.StatusReply:
        plans = [study.checked.plan for study in self._studies.current().values()]
        return api.StatusReply(
            site=self._site,
            version=fedward_version(),
            started_at_s=self._started_at_s,
            connection=self._loop.connection,
            paused=self._folder.paused.exists(),
            last=self._feed.last,
            studies=[
                api.ApprovedStudy(plan_digest=plan.digest(), name=plan.study.name, rounds=_rounds(plan))
                for plan in plans
            ],
            tasks=self._loop.tasks,
            rejected=self._loop.rejected,
        )

    def _approve(self, request: api.ApproveRequest) -> api.ApproveReply:
        """The plan is looked at from a file of our own: no path of somebody else's is opened."""
        with tempfile.TemporaryDirectory(dir=self._folder.path, prefix=".approve-") as folder:
            plan_file = Path(folder) / "plan.toml"
            write_new(plan_file, request.plan, 0o600)
            write_new(signature_path(plan_file), request.signature, 0o600)
            checked = approval.approve(self._folder, plan_file, approver=request.approver)
        return api.ApproveReply(plan_digest=checked.plan.digest())


class ControlServer:
    """The control plane of one site, listening on its socket. Close it in the end.

    Raises: AgentUnavailableError for a path longer than a Unix socket may have, or one that is no socket.
    """

    def __init__(self, folder: SiteFolder, control: SiteControl) -> None:
        self._socket = folder.control_socket.resolve()
        require_socket_path(self._socket)
        self._health = HealthServicer(experimental_non_blocking=False)
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS),
            options=[("grpc.max_receive_message_length", MAX_REQUEST_BYTES), ("grpc.so_reuseport", 0)],
        )
        service.add_SiteControlServicer_to_server(control, self._server)  # type: ignore[no-untyped-call] # generated
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._listen()
        self.report(SERVICE, is_well=True)
        self.report("", is_well=True)
        self.report(SUPERNODE, is_well=False)

    def report(self, name: str, *, is_well: bool) -> None:
        """Say how a part is: ``grpc.health.v1`` answers with it."""
        serving = health_pb2.HealthCheckResponse.SERVING if is_well else health_pb2.HealthCheckResponse.NOT_SERVING
        self._health.set(name, serving)

    def close(self) -> None:
        """Stop listening; remove the socket."""
        self._server.stop(grace=0.5).wait(2.0)
        self._socket.unlink(missing_ok=True)

    def _listen(self) -> None:
        """Make the socket with its mode from the first moment on: the umask is the process's, so this comes early."""
        if self._socket.exists():
            self._socket.unlink()  # of an agent that was killed: whoever holds the folder's lock may
        umask = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{self._socket}")
            self._server.start()
        except RuntimeError:
            raise AgentUnavailableError(f"{self._socket}: cannot listen on this path; check the folder") from None
        finally:
            os.umask(umask)
        self._socket.chmod(0o600)


def _rounds(plan: StudyPlan) -> int:
    return sum(phase.rounds for phase in plan.phases)


def _answered(context: grpc.ServicerContext, work: Callable[[], Reply]) -> Reply:
    """Return the reply; a refusal of ours travels with its sentence, a fault only with its kind."""
    try:
        return work()
    except FedwardError as error:
        context.set_trailing_metadata(((EXIT_CODE_KEY, str(int(error.exit_code))),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    except Exception as error:  # noqa: BLE001 (the last net)
        _log.error("a call met %s", fault_without_text(error))
        context.set_trailing_metadata(((EXIT_CODE_KEY, str(int(ExitCode.INTERNAL))),))
        context.abort(grpc.StatusCode.INTERNAL, "a fault of the agent; see its log")
    raise AssertionError  # abort raised
