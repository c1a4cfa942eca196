"""The gateway's application (ASGI): which requests pass, in which order they are checked, and what passes on.

```
1  path      POST to one of twelve paths, without a query    else 404
2  host      the Host header names this coordinator          else 421
3  visitor   headers signed by an admitted site's node       else 401
4  size      announced, and within the path's limit          else 411, 413
5  place     few requests of this site at the same time      else 503, which SuperNodes try again
6  body      read within time and limit                      else 408, 413
7  sender    one reply at most, bearing the sender's node    else 400
8  forward   the SuperLink answers                           else 503
```

Two of the paths are for public encoders (``server.gateway.encoders``): they end here, and have places of their own.

Nothing of a request is logged but the site's name and the status. Flower's control, runtime and documentation paths are
not on the list; they have no authentication of their own in Flower 1.41.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

import httpx
from flwr.proto.fleet_pb2 import PushMessagesRequest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from common.encoders.travel import MAX_QUESTION_BYTES
from common.encoders.travel import PATHS as ENCODER_PATHS
from server.encoders.offers import OfferedEncoders
from server.gateway.encoders import answered
from server.gateway.places import NoPlaceError, Places
from server.gateway.visitors import Visitors
from server.gateway.wire_walk import WalkError, WalkLimits, walk

FLEET: Final = "/v1/fleet/"
PUSH_MESSAGES: Final = f"{FLEET}push-messages"
FLEET_PATHS: Final = frozenset(
    FLEET + name
    for name in (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run",
        "get-fab", "push-object", "pull-object", "confirm-message-received",
    )
)  # fmt: skip
PATHS: Final = FLEET_PATHS | ENCODER_PATHS
LARGE_PATHS: Final = frozenset(FLEET + name for name in ("push-object", "pull-object", "get-fab"))
# what a host may look like where nobody said which one is right: a name or an address, and a port
HOST: Final = re.compile(r"(?:[0-9A-Za-z.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
FORWARDED: Final = frozenset({"content-type", "accept"})
FLOWER_PREFIX: Final = "flwr-"
SMALL_ANSWER_BYTES: Final = 64 * 1024
LONGEST_LENGTH: Final = 12  # digits
ONCE: Final = frozenset({"node", "messages_list", "message_object_trees"})
WALKED_AT_ONCE_BYTES: Final = 2048  # more is walked beside the event loop
PIECE_BYTES: Final = 64 * 1024  # of a body on its way to the SuperLink: whole, it would be held three times by TLS

_log = logging.getLogger("fedward.gateway")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request and one site may take.

    ``max_body_bytes``: Flower sends objects in pieces of 5 MiB. ``max_push_bytes``: a reply without its objects.
    ``max_small_bytes``: everything else. ``body_timeout_s``: for reading one body. ``forward_timeout_s``: for the
    SuperLink's answer. ``places``: requests of one site at the same time; ``large_places``: of them with objects (a
    SuperNode has two); ``all_large_places``: of all sites. ``encoder_places``: of all sites, for encoders, one of a
    site. ``patience_s``: how long one waits for those.
    """

    max_body_bytes: int = 6 << 20
    max_push_bytes: int = 1 << 20
    max_small_bytes: int = 128 << 10
    body_timeout_s: float = 60.0
    forward_timeout_s: float = 60.0
    places: int = 8
    large_places: int = 2
    all_large_places: int = 8
    encoder_places: int = 4
    patience_s: float = 30.0
    walk: WalkLimits = field(default_factory=WalkLimits)

    def body_bytes(self, path: str) -> int:
        """Return the limit of a body sent to ``path``."""
        if path in ENCODER_PATHS:
            return MAX_QUESTION_BYTES
        if path == FLEET + "push-object":
            return self.max_body_bytes
        return min(self.max_body_bytes, self.max_push_bytes if path == PUSH_MESSAGES else self.max_small_bytes)


class RefusedError(Exception):
    """A request that does not pass; ``status`` is all that its sender learns."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class Door:
    """The application. ``upstream``: a client of the SuperLink on loopback, with its address as base.

    ``hosts``: the names under which sites know this coordinator, in lower case; None: any that is well formed.
    ``encoders``: what sites may fetch; None: nothing.
    """

    def __init__(
        self,
        upstream: httpx.AsyncClient,
        visitors: Visitors,
        limits: Limits | None = None,
        hosts: Collection[str] | None = None,
        *,
        encoders: OfferedEncoders | None = None,
    ) -> None:
        self._upstream, self._visitors, self._limits = upstream, visitors, limits or Limits()
        self._hosts, self._encoders = hosts, encoders
        self._places = Places(
            each=self._limits.places,
            large_each=self._limits.large_places,
            large=self._limits.all_large_places,
            patience_s=self._limits.patience_s,
        )
        self._encoder_places = Places(
            each=2, large_each=1, large=self._limits.encoder_places, patience_s=self._limits.patience_s
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        site = ""
        try:
            path = _path_of(scope)
            self._check_host(request)
            site = self._visitor(request)
            self._check_length(request, path)
            async with self._place(site, path):
                response = await self._serve(request, path)
                # a large answer holds its place until the site has it
                await response(scope, receive, send)
        except (RefusedError, NoPlaceError) as refused:
            status = refused.status if isinstance(refused, RefusedError) else 503
            # the connection ends, because what is left of the body would otherwise be read
            response = Response(status_code=status, headers={"connection": "close"})
            _log.info("%s: %d", site or "a stranger", status)
            await response(scope, receive, send)
        except ClientDisconnect:
            return

    def _place(self, site: str, path: str) -> AbstractAsyncContextManager[None]:
        """Hold a place for a request (5); an encoder on its way takes none from a study. Raises: NoPlaceError."""
        if path in ENCODER_PATHS:
            return self._encoder_places.place(site, is_large=True)
        return self._places.place(site, is_large=path in LARGE_PATHS)

    def _check_host(self, request: Request) -> None:
        """Refuse a request for somebody else (2). Raises: RefusedError."""
        named = [value.lower() for value in request.headers.getlist("host")]
        if len(named) != 1 or not HOST.fullmatch(named[0]):
            raise RefusedError(421)
        host = re.sub(r":[0-9]{1,5}$", "", named[0])
        if self._hosts is not None and host not in self._hosts:
            raise RefusedError(421)

    def _visitor(self, request: Request) -> str:
        """Return the site that sent the request (3). Raises: RefusedError."""
        site = self._visitors.site_of(request.headers)
        if site is None:
            raise RefusedError(401)
        return site

    def _check_length(self, request: Request, path: str) -> None:
        """Refuse a body that is not announced, or as too large (4). Raises: RefusedError."""
        announced = request.headers.get("content-length")
        if "transfer-encoding" in request.headers:  # beside a length too: another reader would believe the other one
            raise RefusedError(411)
        length = announced or "0"
        if not (length.isascii() and length.isdigit()):
            raise RefusedError(400)
        if len(length.lstrip("0")) > LONGEST_LENGTH or int(length) > self._limits.body_bytes(path):
            raise RefusedError(413)

    async def _serve(self, request: Request, path: str) -> Response:
        """Read, check and pass on; a place is held for as long as a body is in memory."""
        body = await self._body(request, self._limits.body_bytes(path))
        if path == PUSH_MESSAGES:
            if len(body) > WALKED_AT_ONCE_BYTES:
                await asyncio.to_thread(check_sender, bytes(body), self._limits.walk)
            else:
                check_sender(bytes(body), self._limits.walk)
        if path in ENCODER_PATHS:
            return await answered(self._encoders, path, bytes(body))
        return await self._forward(request, path, body)

    async def _body(self, request: Request, max_bytes: int) -> bytearray:
        """Return the body (6). Raises: RefusedError, ClientDisconnect."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                async for piece in request.stream():
                    body += piece
                    if len(body) > max_bytes:
                        raise RefusedError(413)
        except TimeoutError:
            raise RefusedError(408) from None
        return body

    async def _forward(self, request: Request, path: str, body: bytearray) -> Response:
        """Send the request on and let the answer stream back (8). Raises: RefusedError."""
        headers = [*_passing(request.headers.items()), ("content-length", str(len(body)))]
        onward = self._upstream.build_request("POST", path, content=_cut(body), headers=headers)
        try:
            answer = await self._upstream.send(onward, stream=True)
            length = answer.headers.get("content-length", "")
            is_small = length.isdecimal() and int(length) <= SMALL_ANSWER_BYTES  # nearly all: "no message for you"
            whole = b"".join([piece async for piece in _pieces(answer)]) if is_small else b""
        except httpx.HTTPError as error:
            _log.warning("the SuperLink does not answer (%s)", type(error).__name__)
            raise RefusedError(503) from None
        kept = dict(_passing(answer.headers.items()))
        if is_small:
            return Response(whole, answer.status_code, headers=kept)
        if length:
            kept["content-length"] = length
        return StreamingResponse(_pieces(answer), answer.status_code, headers=kept)


def _path_of(scope: Scope) -> str:
    """Return which of the twelve paths is asked for, from the bytes that were sent (1). Raises: RefusedError.

    Never from an address that a library put together: older ones take the Host header into it.
    """
    raw: bytes = scope.get("raw_path") or b""
    path = raw.decode("latin-1")
    if scope["method"] != "POST" or path not in PATHS or scope["path"] != path or scope["query_string"]:
        raise RefusedError(404)
    return path


def check_sender(body: bytes, limits: WalkLimits | None = None) -> None:
    """Check that a push holds one reply at most, with few parts, which bears the node that sends it (7).

    The SuperLink checks that the *request's* node belongs to the key, and stores whatever sender the reply names: so
    one site could answer for another (design/flower.md section 2.2). Fresh nonces and signatures stop such a reply at
    the server; here it does not get that far. It also reads the first reply of a list only, and all parts of the rest.
    Raises: RefusedError.
    """
    request = PushMessagesRequest()
    try:
        walk(body, PushMessagesRequest.DESCRIPTOR, limits or WalkLimits(), once=ONCE)
        request.ParseFromString(body)
    except (DecodeError, WalkError):
        raise RefusedError(400) from None
    if any(message.metadata.src_node_id != request.node.node_id for message in request.messages_list):
        raise RefusedError(400)


def _passing(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name in FORWARDED or name.startswith(FLOWER_PREFIX)]


async def _cut(body: bytearray) -> AsyncIterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(body), PIECE_BYTES):
        yield bytes(view[start : start + PIECE_BYTES])


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the answer as it comes; one that breaks off breaks off for the site too, which tries again."""
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()
