"""Many sites in one process behind Flower's ``Grid``: the same ServerApp and ClientApp as in a deployment, no waiting.

Covered: every message becomes protobuf bytes and is read back, both ways; each node has its own ``Context``; an
exception of the ClientApp becomes Flower's error code without its text; replies of the infrastructure come from node 1,
as a SuperLink sends them; faults on the way; a tap that sees every byte that a site sent.
Not covered: real networks, Flower's time-to-live, authentication. One slow test runs the same app on Flower's own
simulation runtime instead.

    grid = LoopbackGrid(client_app, {"north": Path("sites/north"), ...}, workers=2)
    server_app(grid=grid, context=...)
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from simulation.runtime.faults import Delivery, Fault, Trouble, first_fault, passing_order

RUN_ID = 1
FIRST_NODE_ID = 1001
PATIENCE_S = 0.02  # how long one pull waits for the next answer, so that nobody polls in a busy loop
_BODY = "fedward"  # the record beside the envelope and the message in it, see common.flower.messages
_ENVELOPE = "envelope"
_MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Sent:
    """What one site sent: Flower's message type of the question, and the reply's bytes as they leave."""

    site: str
    message_type: str
    round_number: int
    octets: bytes


Tap: TypeAlias = Callable[[Sent], None]


@dataclass(slots=True)
class _Node:
    """One simulated SuperNode: a message at a time, as Flower does it."""

    site: str
    context: Context
    turn: threading.Lock
    round_number: int = 0
    attempt: int = 0


@dataclass(slots=True)
class _Pending:
    """A reply that is being made or on its way; ``octets`` None after work means that nothing will ever come."""

    work: Future[bytes | None]
    ready_at_s: float = 0.0


class LoopbackGrid(Grid):
    """Flower's Grid in one process.

    Args: client_app; folders, site name -> site folder, given to the app as node config ``site-folder``; workers,
    how many sites work at the same time (0: in the caller's thread, one after the other, in a fixed order); faults;
    tap, called with everything a site sends, also with what is lost on the way. With threads the tap must be
    thread-safe.
    """

    def __init__(
        self,
        client_app: ClientApp,
        folders: Mapping[str, Path],
        *,
        workers: int = 0,
        faults: Sequence[Fault] = (),
        tap: Tap | None = None,
    ) -> None:
        # A Message cannot even be constructed outside a task in flwr 1.41: this process is the task.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SUPERLINK_NODE_ID, 1
        self._app, self._faults, self._tap = client_app, tuple(faults), tap
        self._run = Run.create_empty(RUN_ID)
        self._nodes = {
            FIRST_NODE_ID + index: _Node(site, _context(FIRST_NODE_ID + index, folder), threading.Lock())
            for index, (site, folder) in enumerate(folders.items())
        }
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="site") if workers else None
        self._pending: dict[str, _Pending] = {}
        self._news = threading.Condition()

    @property
    def run(self) -> Run:
        """The run this grid belongs to."""
        return self._run

    def set_run(self, run: Run) -> None:
        """Take the run from Flower's runtime."""
        self._run = run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message (deprecated in Flower, part of its interface)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the nodes, in the order of ``folders``."""
        return list(self._nodes)

    def get_nodes(self) -> list[NodeInfo]:
        """Return the nodes with their site names."""
        return [NodeInfo(node_id=number, status="online", name=node.site) for number, node in self._nodes.items()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; returns their identifiers, "" for a node that does not exist (as Flower does)."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that have come for ``message_ids``; waits a moment when there is none yet."""
        wanted, end = list(message_ids), time.monotonic() + PATIENCE_S
        while True:
            replies = [reply for identifier in wanted if (reply := self._take(identifier)) is not None]
            left = end - time.monotonic()
            if replies or left <= 0:
                return [message_from_proto(ProtoMessage.FromString(octets)) for octets in replies]
            with self._news:
                self._news.wait(left)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, then pull until all have answered or ``timeout`` seconds have passed."""
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        waiting, replies = set(self.push_messages(messages)) - {""}, []
        while waiting and time.monotonic() < end:
            for reply in self.pull_messages(waiting):
                replies.append(reply)
                waiting.discard(reply.metadata.reply_to_message_id)
        return replies

    def close(self) -> None:
        """Wait for the sites that still work, and end their threads."""
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _push(self, message: Message) -> str:
        node = self._nodes.get(message.metadata.dst_node_id)
        if node is None:
            return ""
        identifier = uuid.uuid4().hex
        outgoing = message_to_proto(message)
        outgoing.metadata.message_id = identifier
        octets = outgoing.SerializeToString()
        pending = _Pending(Future())
        self._pending[identifier] = pending
        if self._pool:
            self._pool.submit(self._work, node, octets, pending)
        else:
            self._work(node, octets, pending)
        return identifier

    def _take(self, identifier: str) -> bytes | None:
        pending = self._pending.get(identifier)
        if pending is None or not pending.work.done() or time.monotonic() < pending.ready_at_s:
            return None
        octets = pending.work.result()
        if octets is not None:
            del self._pending[identifier]
        return octets

    def _work(self, node: _Node, octets: bytes, pending: _Pending) -> None:
        """One delivery, in a worker: whatever happens, the future is set and the puller woken."""
        with node.turn:
            try:
                message = message_from_proto(ProtoMessage.FromString(octets))
                fault = self._fault(node, message)
                answer = self._answer(node, message, fault)
            except BaseException as error:
                pending.work.set_exception(error)
                raise
        if fault and fault.trouble is Trouble.SLOW:
            pending.ready_at_s = time.monotonic() + fault.delay_s
        pending.work.set_result(answer)
        with self._news:
            self._news.notify_all()

    def _fault(self, node: _Node, message: Message) -> Fault | None:
        """Return what is to go wrong; the order is read only where somebody asks for its round."""
        if not (self._faults or self._tap):
            return None
        return first_fault(self._faults, _delivery(node, message))

    def _answer(self, node: _Node, message: Message, fault: Fault | None) -> bytes | None:
        trouble = fault.trouble if fault else None
        if trouble is Trouble.DROP:
            return _from_superlink(message, ErrorCode.NODE_UNAVAILABLE)
        if trouble is Trouble.HANG:
            return None
        try:
            reply = self._app(message=message, context=node.context)
        except Exception:  # noqa: BLE001 (as a deployment does it: the code travels, the text never)
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "client app failed"), reply_to=message)
        if trouble is Trouble.GARBAGE:
            reply = _garbled(reply)
        outgoing = message_to_proto(reply)
        outgoing.metadata.message_id = uuid.uuid4().hex
        octets: bytes = outgoing.SerializeToString()
        if self._tap:
            self._tap(Sent(node.site, message.metadata.message_type, node.round_number, octets))
        if trouble is Trouble.DROP_AFTER:
            return _from_superlink(message, ErrorCode.NODE_UNAVAILABLE)
        return octets


def _context(node_id: int, folder: Path) -> Context:
    config = {"site-folder": str(folder)}
    return Context(run_id=RUN_ID, node_id=node_id, node_config=dict(config), state=RecordDict(), run_config={})


def _delivery(node: _Node, message: Message) -> Delivery:
    """Say what is being delivered; an ORDER tells the node's round and attempt from now on."""
    action = message.metadata.message_type.partition(".")[2]
    part = _control_message(message) if action == "order" else None
    order = passing_order(part) if part is not None else None
    if order:
        node.round_number, node.attempt = order.round_number, order.attempt
    return Delivery(node.site, action, node.round_number, node.attempt)


def _control_message(message: Message) -> bytes | None:
    """Return the protocol's message in a Flower message, of either form; None where there is none."""
    content = message.content if message.has_content() else {}
    body = content.get(_BODY, content.get(_ENVELOPE))
    part = body.get(_MESSAGE) if isinstance(body, ArrayRecord | ConfigRecord) else None
    if isinstance(part, Array):
        return bytes(part.numpy().tobytes())
    return part if isinstance(part, bytes) else None


def _from_superlink(message: Message, code: int) -> bytes:
    """Return the error reply that the infrastructure sends: from node 1, tied to the question by its identifier."""
    reply = message_to_proto(Message(Error(code, "injected"), reply_to=message))
    reply.metadata.src_node_id = SUPERLINK_NODE_ID
    reply.metadata.message_id = uuid.uuid4().hex
    octets: bytes = reply.SerializeToString()
    return octets


def _garbled(reply: Message) -> Message:
    """Replace message and payload of a reply by random bytes of the same length; names and envelope stay plausible."""
    if reply.has_content():
        small = reply.content.config_records.get(_ENVELOPE)
        if small is not None and _MESSAGE in small:
            small[_MESSAGE] = os.urandom(len(cast(bytes, small[_MESSAGE])))
        for record in reply.content.array_records.values():
            for name, array in list(record.items()):
                record[name] = Array(
                    dtype=array.dtype, shape=array.shape, stype=array.stype, data=_random_like(array.data)
                )
    return reply


def _random_like(data: bytes) -> bytes:
    """Keep the container's header (numpy's is 128 bytes), so that the garbage gets past Flower to our own checks."""
    return data[:128] + os.urandom(max(0, len(data) - 128))
