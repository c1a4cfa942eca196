"""What a hostile admitted hospital does to the gateway: everything at once, for so long.

Its requests are signed with its own node key, as a SuperNode signs (``flwr.supernode.node_auth_http_interceptor``).
"""

import base64
import contextlib
import datetime as dt
import http.client
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from flwr.proto.node_pb2 import Node

from server.gateway.door import FLEET, PUSH_MESSAGES, Limits

HALF_HEADS: Final = 40
SILENT: Final = 80
EMPTY_MESSAGE: Final = b"\x12\x02\x0a\x00"
OVER_ALL_LIMITS_BYTES: Final = 16 << 20
PATIENCE_S: Final = 60.0


@dataclass(frozen=True)
class Visitor:
    """One hospital at the door: its node and key, and how it finds and trusts the gateway."""

    node: int
    pem: bytes
    port: int
    authority: Path

    @cached_property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """The node's key."""
        key = load_pem_private_key(self.pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 (for the type checker)
        return key

    def post(self, path: str, body: bytes) -> int:
        """Send one signed request on a connection of its own and return the status. Raises: OSError."""
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.trust(), timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("POST", path, body, self._headers())
            answer = connection.getresponse()
            answer.read()
            return answer.status

    def beat(self) -> int:
        """Say that the hospital is alive, as its SuperNode does every 30 seconds, and return the status."""
        beat = SendNodeHeartbeatRequest(node=Node(node_id=self.node), heartbeat_interval=30)
        return self.post(f"{FLEET}send-node-heartbeat", beat.SerializeToString())

    def trust(self) -> ssl.SSLContext:
        """Return a context that trusts this federation alone."""
        return ssl.create_default_context(cafile=str(self.authority))

    def _headers(self) -> dict[str, str]:
        now = dt.datetime.now(dt.UTC).isoformat()
        pem = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return {
            "flwr-public-key": base64.b64encode(pem).decode(),
            "flwr-timestamp": now,
            "flwr-signature": base64.b64encode(self.key.sign(now.encode(), ec.ECDSA(hashes.SHA256()))).decode(),
            "content-type": "application/protobuf",
            "accept": "application/protobuf",
        }


def bodies(node: int) -> dict[str, tuple[str, bytes]]:
    """Return path and body of each kind of hostile request."""
    limits, reply = Limits(), Message(metadata=Metadata(src_node_id=node, run_id=1))
    empty = PushMessagesRequest(node=Node(node_id=node), messages_list=[reply]).SerializeToString()
    objects = ObjectTree(children=[ObjectTree()] * (limits.max_push_bytes // 4))
    wide = PushMessagesRequest(node=Node(node_id=node), messages_list=[reply], message_object_trees=[objects])
    return {
        "a push of 16 MiB": (PUSH_MESSAGES, EMPTY_MESSAGE * (OVER_ALL_LIMITS_BYTES // 4)),
        "a push of 16 MiB, again": (PUSH_MESSAGES, EMPTY_MESSAGE * (OVER_ALL_LIMITS_BYTES // 4)),
        "a list of 262 144 messages": (PUSH_MESSAGES, EMPTY_MESSAGE * (limits.max_push_bytes // 4)),
        "a reply of its own for a run that is none": (PUSH_MESSAGES, empty),
        "a quarter of a million objects": (PUSH_MESSAGES, wide.SerializeToString()[: limits.max_push_bytes]),
        "an object of 6 MiB": (f"{FLEET}push-object", bytes(limits.max_body_bytes)),
        "a question of 128 KiB": (f"{FLEET}pull-messages", b"\x0a" * limits.max_small_bytes),
    }


@dataclass
class Load:
    """Runs every kind of request in two threads of its own, and holds connections open, while the context lasts."""

    visitor: Visitor
    answers: Counter[str] = field(default_factory=Counter)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        for name, (path, body) in bodies(self.visitor.node).items():
            for _ in range(2):
                self._start(lambda name=name, path=path, body=body: self._ask(name, path, body))  # type: ignore[misc]
        self._start(self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)

    def _start(self, work: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def _ask(self, name: str, path: str, body: bytes) -> None:
        while not self._ended.wait(0.05):
            try:
                answer = str(self.visitor.post(path, body))
            except (OSError, http.client.HTTPException):
                answer = "cut off"  # a body that is refused unread
            self.answers[f"{name}: {answer}"] += 1

    def _hold(self) -> None:
        """Hold half heads and connections that say nothing, and open them again when they are dropped."""
        trust = self.visitor.trust()
        while not self._ended.is_set():
            with contextlib.ExitStack() as held:
                for number in range(HALF_HEADS + SILENT):
                    with contextlib.suppress(OSError):
                        self._hold_one(held, trust if number < HALF_HEADS else None)
                self._ended.wait(5.0)

    def _hold_one(self, held: contextlib.ExitStack, trust: ssl.SSLContext | None) -> None:
        plain = held.enter_context(socket.create_connection(("127.0.0.1", self.visitor.port), 10.0))
        if trust is not None:
            half = held.enter_context(trust.wrap_socket(plain, server_hostname="localhost"))
            half.sendall(f"POST {PUSH_MESSAGES} HTTP/1.1\r\nhost: localhost\r\nx: ".encode())


def beats(visitor: Visitor, seconds: float, pause_s: float = 0.2) -> list[float]:
    """Return how long each heartbeat of a hospital took, in seconds; infinite where it was not answered with 200."""
    found, end_s = [], time.monotonic() + seconds
    while time.monotonic() < end_s:
        began_s = time.monotonic()
        try:
            status = visitor.beat()
        except (OSError, http.client.HTTPException):
            status = 0
        found.append(time.monotonic() - began_s if status == http.client.OK else float("inf"))
        time.sleep(pause_s)
    return found


def press(visitor: Visitor, seconds: float) -> dict[str, int]:
    """Load the gateway for so long, and return what was answered how often; for a process of its own.

    It gives way to the others: a hostile hospital computes on a machine of its own.
    """
    os.nice(10)
    with Load(visitor) as load:
        time.sleep(seconds)
    return dict(sorted(load.answers.items()))
