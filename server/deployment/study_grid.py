"""Flower's grid for one study: one broken or malicious reply costs its sender, never the others.

The SuperLink forgets replies when it has listed them. Flower's own ``pull_messages`` then fetches and unpacks them in
one go, so an object that cannot be unpacked loses the replies of everybody who answered at the same time, and nothing
bounds what is fetched before our own checks see it. Here each reply stands alone, within a budget of bytes; what cannot
be had becomes an error message to the question it answers, as Flower does for objects that are missing.
"""

import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NoReturn

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
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, inflate_object_from_contents, pull_objects
from flwr.supercore.run import RunNotRunningException
from flwr.superlink.grid import http_grid

from common.faults import fault_without_text

EXIT_RUN_GONE: Final = 75  # EX_TEMPFAIL of sysexits.h: the executor starts a new run
FIRST_OBJECT_PAUSE_S: Final = 0.05  # Flower's own is 1 s, met whenever a reply is seen before its objects
SMALL_REPLY_BYTES: Final = 4 << 20  # more than any message without a vector

_log = logging.getLogger("fedward.study")


class StudyGrid(http_grid.HttpGrid):
    """Flower's grid, in a process that has nothing else to do than this run.

    ``largest_reply_bytes``: what one reply may take with its vector; more is left where it is.
    When the SuperLink says that the run is over (it was away too long, or somebody stopped it), the process ends at
    once: every wait would be in vain, and the journal is durable at every moment.
    """

    largest_reply_bytes: int = SMALL_REPLY_BYTES

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
        """Fetch replies; one that cannot be fetched, unpacked or kept within the budget comes as an error."""
        request = PullAppMessagesRequest(message_ids=message_ids)
        try:
            listed = self._runtime_client.PullMessages(request)
            pairs = zip(listed.messages_list, listed.message_object_trees, strict=True)
            return [self._reply(announced.metadata, tree) for announced, tree in pairs]
        except RunNotRunningException:
            _leave()

    def _reply(self, announced: Any, tree: Any) -> Message:
        try:
            message = self._fetched(announced.message_id, tree)
            # which question it answers is the SuperLink's word, not the sender's
            message.metadata.__dict__["_reply_to_message_id"] = announced.reply_to_message_id
            return message
        except RunNotRunningException:
            raise
        except Exception as error:  # noqa: BLE001 (whatever a reply is made of, it is its sender's reply only)
            _log.warning("a reply of node %d was dropped: %s", announced.src_node_id, fault_without_text(error))
            return self._unavailable(announced.reply_to_message_id)

    def _fetched(self, message_id: str, tree: Any) -> Message:
        """Fetch the objects of a reply and put it together. Raises: whatever a stranger's objects make Flower raise."""
        run_id = self._run.run_id if self._run else 0
        fetch = make_pull_object_fn_protobuf(
            pull_object_protobuf=self._runtime_client.PullObject, node=self.node, run_id=run_id
        )
        names = [each.object_id for each in iterate_object_tree(tree)]
        budget = _Budget(self.largest_reply_bytes)
        contents = pull_objects(names, partial(budget.fetch, fetch), initial_backoff=FIRST_OBJECT_PAUSE_S)
        received = ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=message_id)
        self._runtime_client.ConfirmMessageReceived(received)
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
