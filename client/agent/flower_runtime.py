"""The way to the SuperNode beside the agent, over loopback: take a task, pull its message, push the reply.

The only file of the agent that leans on Flower's internals (besides ``claim``), so it works with exactly one version
of Flower. What it takes from ``flwr`` it uses as ``flwr-clientapp`` does, with these differences:
* the bundle (FAB) is handed out as bytes; nothing unpacks or imports it;
* nothing here ends the process: Flower's own retrying sends SIGINT to itself on 401, and its heartbeat does when the
  SuperNode forgot the task (``flwr.supercore.retry.http_retry``, ``flwr.supercore.heartbeat``);
* a message whose objects are still on their way is asked for again after 50 ms, not after a second;
* a model costs its own size once while it comes and goes (``common.flower.objects``);
* only CLIENT_APP tasks are ever asked for: no agent apps, connectors or models.

A reply must be pushed before the task is finished: the SuperNode looks for nothing else until it has one.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpx
from flwr.app import Context, Message
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, pull_and_inflate_object_from_tree
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime import run_clientapp
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from common.flower.objects import ReleasedResponses, spare_memory

RETRY_FOR_S: Final = 60.0  # the SuperNode forgets a task that it has not heard of for so long
OBJECT_WAIT_S: Final = 0.05

run_clientapp.pull_and_inflate_object_from_tree = functools.partial(  # type: ignore[attr-defined]
    pull_and_inflate_object_from_tree, initial_backoff=OBJECT_WAIT_S
)
spare_memory()


class RuntimeAwayError(Exception):
    """Nobody answers on the runtime port, or what answers is no SuperNode in order: try again later."""


class RuntimeRefusedError(Exception):
    """The SuperNode does not take our secret or token."""


@dataclass(frozen=True)
class PulledTask:
    """What a task is about. ``context``: Flower's, untouched. ``bundle``: the FAB, not to be opened."""

    message: Message
    context: Context
    bundle: bytes


class Runtime:
    """The SuperNode's runtime API at ``address`` (host:port on loopback), for whoever shares ``secret`` with it."""

    def __init__(self, address: str, secret: bytes) -> None:
        self._address = address
        interceptor = SuperExecAuthHttpInterceptor(
            master_secret=secret, protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"})
        )
        self._client = self._connect("SuperExec", interceptor, None)

    def acquire(self) -> str | None:
        """Take the oldest waiting task; return its token, or None when there is none.

        Raises: RuntimeAwayError, RuntimeRefusedError (the secrets differ).
        """
        with _translated():
            answer = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
        return answer.token if answer.HasField("task") and answer.token else None

    def open(self, token: str) -> "RuntimeTask":
        """Return the task of ``token``, whose heart beats from now on; close it in the end."""
        interceptor = RuntimeTokenHttpInterceptor(token)
        work = self._connect("flwr-clientapp", interceptor, _patient())
        return RuntimeTask(work, self._connect("flwr-clientapp", interceptor, None))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _connect(self, component: str, interceptor: object, retry: RetryInvoker | None) -> RuntimeHttpClient:
        return RuntimeHttpClient.from_server_address(
            server_address=self._address,
            insecure=True,  # loopback; who may ask is settled by secret and token
            root_certificates=None,
            interceptors=[
                ReleasedResponses(),
                RuntimeVersionHttpInterceptor(component_name=component),
                interceptor,  # type: ignore[list-item]
            ],
            retry_invoker=retry,
        )


class RuntimeTask:
    """One claimed task. Everything raises RuntimeAwayError or RuntimeRefusedError when the SuperNode is gone."""

    def __init__(self, client: RuntimeHttpClient, pulse: RuntimeHttpClient) -> None:
        self._client, self._pulse = client, pulse
        self._heartbeat = HeartbeatSender(_beat(pulse))
        self._heartbeat.start()

    def pull(self) -> PulledTask:
        """Fetch message, context and bundle; the SuperNode counts the task as running from now on.

        Raises: RuntimeAwayError also for a message that cannot be unpacked.
        """
        with _translated():
            try:
                message, context, _run, fab = pull_task_input(self._client)
            except (httpx.HTTPError, ObjectPullError, RuntimeError, ValueError):
                raise
            except Exception as error:  # noqa: BLE001 (a message is the server's; unpacking it may raise anything)
                raise RuntimeAwayError(type(error).__name__) from None
        return PulledTask(message, context, fab.content)

    def reply(self, message: Message, context: Context) -> None:
        """Hand over the reply; the SuperNode sends it."""
        with _translated():
            push_message(self._client, message, context)

    def finish(self, context: Context | None, *, completed: bool) -> None:
        """Say that the task is over. Only after ``reply``."""
        status = SubStatus.COMPLETED if completed else SubStatus.FAILED
        with _translated():
            push_task_output(self._client, context, status, "" if completed else "see the site's log")

    def close(self) -> None:
        """Stop the heartbeat and close the connection. A task that was not finished is given up a minute later."""
        if self._heartbeat.is_running:
            self._heartbeat.stop()
        self._pulse.close()
        self._client.close()


def _patient() -> RetryInvoker:
    """Retry what fails on the way, for a minute; a status code is an answer and is not retried."""
    return RetryInvoker(
        wait_gen_factory=lambda: exponential(base_delay=0.2, max_delay=2),
        recoverable_exceptions=(httpx.TransportError,),
        max_tries=None,
        max_time=RETRY_FOR_S,
    )


def _beat(client: RuntimeHttpClient) -> Callable[[], bool]:
    """Return the heartbeat: False asks for another try soon. A task that is forgotten gets no special end."""

    def beat() -> bool:
        try:
            client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except httpx.TransportError:
            return False
        except (httpx.HTTPStatusError, ValueError, RuntimeError):
            return True
        return True

    return beat


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        refused = error.response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
        kind = RuntimeRefusedError if refused else RuntimeAwayError
        raise kind(f"status {error.response.status_code}") from None
    except (httpx.HTTPError, ObjectPullError, RuntimeError, ValueError) as error:
        raise RuntimeAwayError(type(error).__name__) from None
