"""The gateway's application (ASGI): which requests pass, in which order they are checked, and what passes on.

```
1  path      POST to one of ten paths, without a query       else 404
2  visitor   headers signed by an admitted site's node       else 401
3  size      announced length within the limit               else 413
4  place     few requests of this site at the same time      else 503, which SuperNodes try again
5  body      read within time and limit                      else 408, 413
6  sender    replies bear the sender's own node              else 400
7  forward   the SuperLink answers                           else 503
```

Nothing of a request is logged but the site's name and the status. Flower's control, runtime and documentation paths are
not on the list; they have no authentication of their own in Flower 1.41.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

import httpx
from flwr.proto.fleet_pb2 import PushMessagesRequest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from server.gateway.visitors import Visitors

FLEET: Final = "/v1/fleet/"
PUSH_MESSAGES: Final = f"{FLEET}push-messages"
PATHS: Final = frozenset(
    FLEET + name
    for name in (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run",
        "get-fab", "push-object", "pull-object", "confirm-message-received",
    )
)  # fmt: skip
FORWARDED: Final = frozenset({"content-type", "accept"})
FLOWER_PREFIX: Final = "flwr-"
SMALL_ANSWER_BYTES: Final = 64 * 1024

_log = logging.getLogger("fedward.gateway")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request and one site may take.

    ``max_body_bytes``: Flower sends objects in pieces of 5 MB. ``body_timeout_s``: for reading one body.
    ``forward_timeout_s``: for the SuperLink's answer. ``places``: requests of one site at the same time.
    """

    max_body_bytes: int = 16 << 20
    body_timeout_s: float = 60.0
    forward_timeout_s: float = 60.0
    places: int = 8


class RefusedError(Exception):
    """A request that does not pass; ``status`` is all that its sender learns."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class Door:
    """The application. ``upstream``: a client of the SuperLink on loopback, with its address as base."""

    def __init__(self, upstream: httpx.AsyncClient, visitors: Visitors, limits: Limits | None = None) -> None:
        self._upstream, self._visitors, self._limits = upstream, visitors, limits or Limits()
        self._inside: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        site = ""
        try:
            site = self._admit(request)
            self._check_length(request)
            response = await self._serve(site, request)
        except RefusedError as refused:
            # the connection ends, because what is left of the body would otherwise be read
            response = Response(status_code=refused.status, headers={"connection": "close"})
            _log.info("%s: %d", site or "a stranger", refused.status)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    def _admit(self, request: Request) -> str:
        """Return the site that sent the request (1, 2). Raises: RefusedError."""
        raw_path = request.scope.get("raw_path", b"")
        if request.method != "POST" or raw_path.decode("latin-1") not in PATHS or request.scope["query_string"]:
            raise RefusedError(404)
        site = self._visitors.site_of(request.headers)
        if site is None:
            raise RefusedError(401)
        return site

    def _check_length(self, request: Request) -> None:
        """Refuse a body that is announced as too large (3). Raises: RefusedError."""
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._limits.max_body_bytes:
            raise RefusedError(413)

    async def _serve(self, site: str, request: Request) -> Response:
        """Hold one of the site's places (4) for as long as a body of it is in memory."""
        if self._inside[site] >= self._limits.places:
            raise RefusedError(503)
        self._inside[site] += 1
        try:
            body = await self._body(request)
            if request.url.path == PUSH_MESSAGES:
                check_sender(body)
            return await self._forward(request, body)
        finally:
            self._inside[site] -= 1

    async def _body(self, request: Request) -> bytes:
        """Return the body (5). Raises: RefusedError, ClientDisconnect."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                async for piece in request.stream():
                    body += piece
                    if len(body) > self._limits.max_body_bytes:
                        raise RefusedError(413)
        except TimeoutError:
            raise RefusedError(408) from None
        return bytes(body)

    async def _forward(self, request: Request, body: bytes) -> Response:
        """Send the request on and let the answer stream back (7). Raises: RefusedError."""
        headers = _passing(request.headers.items())
        onward = self._upstream.build_request("POST", request.url.path, content=body, headers=headers)
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


def check_sender(body: bytes) -> None:
    """Check that every reply in a push bears the node that sends it (6).

    The SuperLink checks that the *request's* node belongs to the key, and stores whatever sender the replies name: so
    one site could answer for another (design/flower.md section 2.2). Fresh nonces and signatures stop such a reply at
    the server; here it does not get that far. Raises: RefusedError.
    """
    request = PushMessagesRequest()
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise RefusedError(400) from None
    if any(message.metadata.src_node_id != request.node.node_id for message in request.messages_list):
        raise RefusedError(400)


def _passing(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name in FORWARDED or name.startswith(FLOWER_PREFIX)]


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the answer as it comes; one that breaks off breaks off for the site too, which tries again."""
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()
