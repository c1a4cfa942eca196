"""Connections with limits: how many, how many from one address, and how long one may say nothing.

uvicorn bounds the pause between two requests, but not the time until the first one is complete; a stranger could hold
connections open for ever.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MAX_HEAD_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """``connections`` in all and ``from_address`` for each address; ``head_timeout_s`` until a request's headers."""

    connections: int = 512
    from_address: int = 64
    head_timeout_s: float = 10.0
    idle_timeout_s: int = 75


class LimitedConnection(H11Protocol):
    """One connection of uvicorn that keeps ``limits``."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or drop it where there are too many."""
        super().connection_made(transport)
        address = _address(self)
        same = sum(1 for other in self.connections if _address(other) == address)
        if len(self.connections) > self.limits.connections or same > self.limits.from_address:
            transport.abort()
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Read on; the time for the headers runs while no request is being answered."""
        if not self._is_answering():
            self._expect_head()
        super().data_received(data)
        if self._is_answering():
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up."""
        self._stop_timer()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

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


def _address(connection: Any) -> str:
    client = getattr(connection, "client", None)
    return client[0] if client else ""
