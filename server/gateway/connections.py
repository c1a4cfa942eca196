"""Connections with limits: how many, how many from one address, and how long one may say nothing.

uvicorn bounds the pause between two requests, but not the time until the first one is complete; a stranger could hold
connections open for ever. When places run short, the connection that nobody would miss goes first, and of those the
oldest: (1) one that has not finished its TLS handshake or its first request (a stranger's never gets further, because
the door closes it), (2) one that is idle between two requests. A request that is being answered is never cut off.
"""

import asyncio
import itertools
import resource
from asyncio.sslproto import SSLProtocol
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MAX_HEAD_BYTES: Final = 16 * 1024
TLS_BUFFER_BYTES: Final = 32 * 1024  # a TLS record has 16 KiB
_turn = itertools.count()


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """``connections`` in all and ``from_address`` for each address; ``head_timeout_s`` until a request's headers.

    ``handshakes``: connections that have not finished their TLS handshake.
    """

    connections: int = 512
    from_address: int = 64
    handshakes: int = 128
    head_timeout_s: float = 10.0
    idle_timeout_s: int = 75


class LimitedConnection(H11Protocol):
    """One connection of uvicorn that keeps ``limits``."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    _head_timer: asyncio.TimerHandle | None = None
    _used: int = 0  # when it last did something: a count, so that two are never the same

    def connection_made(self, transport: Any) -> None:
        """Take the connection, and drop another one where there are too many; or this one, where all are at work."""
        super().connection_made(transport)
        self._used = next(_turn)
        address = _address(self)
        others = [other for other in self.connections if isinstance(other, LimitedConnection) and other is not self]
        neighbours = [other for other in others if _address(other) == address]
        for crowd, places in ((neighbours, self.limits.from_address), (others, self.limits.connections)):
            if len(crowd) >= places and not _drop_one(crowd):
                transport.abort()
                return
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Read on; the time for the headers runs while no request is being answered."""
        if not self.is_answering:
            self._expect_head()
        super().data_received(data)
        if self.is_answering:
            self._used = next(_turn)
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up."""
        self._stop_timer()
        super().connection_lost(exc)

    @property
    def is_answering(self) -> bool:
        """Whether a request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    @property
    def rank(self) -> tuple[bool, int]:
        """The lowest goes first: those that never sent a whole request, then the one idle for longest."""
        return self.cycle is not None, self._used

    def drop(self) -> None:
        """End the connection at once."""
        self.connections.discard(self)
        self.transport.abort()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_timeout_s, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def limited(limits: ConnectionLimits) -> type[LimitedConnection]:
    """Return a protocol class for uvicorn with these limits."""
    return type("LimitedConnection", (LimitedConnection,), {"limits": limits})


def bound_handshakes(loop: asyncio.AbstractEventLoop, most: int) -> None:
    """Let the oldest TLS handshake end when more than ``most`` are under way on ``loop``.

    asyncio tells a protocol of a connection only after the handshake, so it is watched where the loop makes the
    transport (``asyncio.base_events``, Python 3.11 to 3.14); where a loop has no such place, the handshake's own
    timeout is the only limit.
    """
    make = getattr(loop, "_make_ssl_transport", None)
    if make is None:
        return
    waiting: dict[asyncio.Transport, asyncio.Future[Any]] = {}

    def counted(sock: Any, protocol: Any, context: Any, waiter: Any = None, **options: Any) -> asyncio.Transport:
        transport: asyncio.Transport = make(sock, protocol, context, waiter, **options)
        if options.get("server_side") and waiter is not None:
            waiting[transport] = waiter
            waiter.add_done_callback(lambda _: waiting.pop(transport, None))
            if len(waiting) > most:
                oldest = next(iter(waiting))
                waiting.pop(oldest)
                oldest.abort()
        return transport

    loop._make_ssl_transport = counted  # type: ignore[attr-defined] # noqa: SLF001


def bound_buffers() -> None:
    """Give each TLS connection a buffer of two records instead of sixteen (asyncio's 256 KiB, taken when it opens)."""
    SSLProtocol.max_size = TLS_BUFFER_BYTES


def allow_open_files() -> None:
    """Raise the soft limit of open files to the hard one: many shells set 1024, fewer than two for each connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _drop_one(crowd: Iterable[LimitedConnection]) -> bool:
    """Drop the connection that would be missed least; tell whether there was one that may go."""
    spare = [connection for connection in crowd if not connection.is_answering]
    if not spare:
        return False
    min(spare, key=lambda connection: connection.rank).drop()
    return True


def _address(connection: Any) -> str:
    client = getattr(connection, "client", None)
    return client[0] if client else ""
