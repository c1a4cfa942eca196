"""Flower's grid for one study: one broken or malicious reply costs its sender, never the others.

The SuperLink lists a reply once, and as soon as its sender begins to upload it. Flower's own ``pull_messages`` then
waits for every object, up to two hours, and unpacks all replies in one go: a sender who stops halfway holds everybody
up, an object that cannot be unpacked loses the replies of all who answered at the same time, and nothing bounds what
is fetched before our own checks see it. Here each reply stands alone: it is fetched when its last object is there,
within a budget of bytes, and what cannot be had becomes an error message to the question it answers.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import httpx
from flwr.app import Message, Metadata
from flwr.app.error import Error
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
)
from flwr.supercore.run import RunNotRunningException
from flwr.superlink.grid import http_grid

from common.faults import fault_without_text
from common.flower.objects import ReleasedResponses, arrays_of_at_most
from common.processes.freed_memory import give_back

EXIT_RUN_GONE: Final = 75  # EX_TEMPFAIL of sysexits.h: the executor starts a new run
# Two senders work side by side: the message itself may be there before a part of 5 MB, which takes a slow line minutes.
OBJECT_PAUSE_S: Final = 0.05
OBJECT_WAIT_S: Final = 0.3  # at one look: the others wait meanwhile
LAST_OBJECTS_S: Final = 300.0  # in all
FORGOTTEN_S: Final = 3600.0  # replies that nobody asks for any more
SMALL_REPLY_BYTES: Final = 4 << 20  # more than any message without a vector

_log = logging.getLogger("fedward.study")


@dataclass(eq=False)
class _Listed:
    """A reply that the SuperLink listed; ``seen_s``: when the message itself was first there; 0: not yet."""

    announced: Any
    tree: Any
    asked_s: float
    seen_s: float = 0.0
    next_look_s: float = 0.0


class StudyGrid(http_grid.HttpGrid):
    """Flower's grid, in a process that has nothing else to do than this run.

    ``largest_reply_bytes``: what one reply may take with its vector; more is left where it is.
    When the SuperLink says that the run is over (it was away too long, or somebody stopped it), the process ends at
    once: every wait would be in vain, and the journal is durable at every moment.
    """

    largest_reply_bytes: int = SMALL_REPLY_BYTES

    def __init__(self, address: str, *, authority: bytes | None, token: str) -> None:
        super().__init__(address, insecure=authority is None, root_certificates=authority, token=token)
        self._listed: dict[str, _Listed] = {}  # question -> what the SuperLink said of its reply

    def _connect(self) -> None:
        super()._connect()
        client = self._runtime_client
        client._interceptors = (ReleasedResponses(), *client._interceptors)  # noqa: SLF001 (the version is pinned)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are online."""
        try:
            return super().get_node_ids()
        except RunNotRunningException:
            _leave()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages."""
        try:
            return super().push_messages(messages)
        except RunNotRunningException:
            _leave()

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Fetch the replies that are there; one that cannot be unpacked or is too large comes as an error."""
        questions = list(message_ids)
        try:
            # of a question whose reply was listed the SuperLink would say that there is no such question
            self._list([question for question in questions if question not in self._listed])
            found = [self._reply(self._listed[question]) for question in questions if question in self._listed]
        except RunNotRunningException:
            _leave()
        replies = [reply for reply in found if reply is not None]
        for reply in replies:
            del self._listed[reply.metadata.reply_to_message_id]
        return replies

    def _list(self, questions: list[str]) -> None:
        now_s = time.monotonic()
        for question, each in list(self._listed.items()):
            if now_s - each.asked_s > FORGOTTEN_S:
                del self._listed[question]
        if not questions:
            return
        new = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=questions))
        for announced, tree in zip(new.messages_list, new.message_object_trees, strict=True):
            self._listed[announced.metadata.reply_to_message_id] = _Listed(announced.metadata, tree, now_s)

    def _reply(self, listed: _Listed) -> Message | None:
        """Return the reply, or the error in its place; None while its sender uploads it, or the SuperLink is away."""
        announced, listed.asked_s = listed.announced, time.monotonic()
        if listed.asked_s < listed.next_look_s:
            return None
        try:
            message = self._fetched(listed)
        except RunNotRunningException:
            raise
        except (ObjectUnavailableError, httpx.TransportError):
            return None
        except Exception as error:  # noqa: BLE001 (whatever a reply is made of, it is its sender's reply only)
            _log.warning("a reply of node %d was dropped: %s", announced.src_node_id, fault_without_text(error))
            return self._unavailable(announced.reply_to_message_id)
        # which question it answers is the SuperLink's word, not the sender's
        message.metadata.__dict__["_reply_to_message_id"] = announced.reply_to_message_id
        return message

    def _fetched(self, listed: _Listed) -> Message:
        """Fetch the objects of a reply and put it together.

        Raises: ObjectUnavailableError while one of them is not there; whatever a stranger's objects make Flower raise.
        """
        run_id, message_id = self._run.run_id if self._run else 0, listed.announced.message_id
        fetch = make_pull_object_fn_protobuf(
            pull_object_protobuf=self._runtime_client.PullObject, node=self.node, run_id=run_id
        )
        budget = _Budget(self.largest_reply_bytes)
        contents = {message_id: budget.fetch(fetch, message_id)}  # senders upload the message itself after its parts
        listed.seen_s = listed.seen_s or time.monotonic()
        until_s = time.monotonic() + OBJECT_WAIT_S
        # what may be missing was sent last: asked for first, it costs no fetching of the others
        for name in reversed([each.object_id for each in iterate_object_tree(listed.tree)]):
            if name not in contents:
                contents[name] = _part(listed, name, lambda name: budget.fetch(fetch, name), until_s)
        give_back(sum(map(len, contents.values())))
        received = ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=message_id)
        with contextlib.suppress(httpx.TransportError):  # all is here; only the SuperLink keeps it for longer
            self._runtime_client.ConfirmMessageReceived(received)
        with arrays_of_at_most(self.largest_reply_bytes):
            message = inflate_object_from_contents(message_id, contents)
        if not isinstance(message, Message):
            raise TypeError("not a message")
        message.metadata.__dict__["_message_id"] = message_id
        return message

    def _unavailable(self, question: str) -> Message:
        metadata = Metadata(
            run_id=self._run.run_id if self._run else 0,
            message_id="",
            src_node_id=self.node.node_id,
            dst_node_id=self.node.node_id,
            message_type=SYSTEM_MESSAGE_TYPE,
            group_id="",
            ttl=0,
            reply_to_message_id=question,
            created_at=now().timestamp(),
        )
        error = Error(code=ErrorCode.MESSAGE_UNAVAILABLE, reason="the reply could not be had")
        return make_message(metadata=metadata, error=error)


def _part(listed: _Listed, name: str, fetch: Callable[[str], bytes], until_s: float) -> bytes:
    """Return an object of a reply whose message is there.

    Raises: ObjectUnavailableError if it is not there by ``until_s``; the pauses between two looks then grow, so that
    who never sends it costs a few. ObjectPullError after ``LAST_OBJECTS_S``.
    """
    while True:
        try:
            return fetch(name)
        except ObjectUnavailableError:
            now_s = time.monotonic()
            if now_s - listed.seen_s >= LAST_OBJECTS_S:
                raise ObjectPullError(name, "its sender stopped halfway") from None
            if now_s >= until_s:
                listed.next_look_s = now_s + (now_s - listed.seen_s) / 2
                raise
        time.sleep(OBJECT_PAUSE_S)


class _Budget:
    """Fetches objects until ``most_bytes`` are spent (each is bounded by the gateway)."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes

    def fetch(self, one: Callable[[str], bytes], name: str) -> bytes:
        """Return the object. Raises: ObjectPullError beyond the budget."""
        if self._left < 0:
            raise ObjectPullError(name, "the reply is larger than any of this study")
        content = one(name)
        self._left -= len(content)
        return content


def _leave() -> NoReturn:
    _log.warning("the run is over at the SuperLink; a new one goes on from the journal")
    os._exit(EXIT_RUN_GONE)
