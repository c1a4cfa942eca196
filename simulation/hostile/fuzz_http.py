"""HTTP for the fuzz run: octets into the protocol classes that listen in earnest, over a transport in memory."""

import asyncio
import logging
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

PATIENCE_S: Final = 20.0
_FAULT: Final = b"HTTP/1.1 500"


class FaultError(Exception):
    """A request was answered with 500, or not within ``PATIENCE_S``: the fault of a page or of the gateway."""


class _Transport(asyncio.Transport):
    """What a protocol writes, and whether it closed; the visitor is always the same address."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.is_closed = bytearray(), False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the addresses of a visitor on this machine."""
        return {"peername": ("127.0.0.1", 50_000), "sockname": ("127.0.0.1", 8000)}.get(name, default)

    def write(self, data: Any) -> None:
        """Keep the answer."""
        self.written += data

    def is_closing(self) -> bool:
        """Tell whether the connection ended."""
        return self.is_closed

    def close(self) -> None:
        """End."""
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None:
        """Nothing: everything was sent before."""

    resume_reading = pause_reading


class Listener:
    """One application behind one protocol class of uvicorn."""

    def __init__(self, app: ASGIApp, protocol: type[H11Protocol], max_head_bytes: int) -> None:
        self._loop, self._protocol = asyncio.new_event_loop(), protocol
        self._config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=max_head_bytes,
        )
        for name in ("uvicorn.error", "fedward.gateway", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def answer(self, content: bytes) -> bytes:
        """Return what is written to somebody who sends ``content`` and hangs up. Raises: FaultError."""
        written = self._loop.run_until_complete(self._answered(content))
        if _FAULT in written:
            raise FaultError("500")
        return written

    async def _answered(self, content: bytes) -> bytes:
        state, transport = ServerState(), _Transport()
        connection = self._protocol(self._config, state, {}, asyncio.get_running_loop())
        connection.connection_made(transport)
        half = len(content) // 2
        for piece in (content[:half], content[half:]):
            if piece and not transport.is_closed:  # no transport delivers nothing: that would mean the end
                connection.data_received(piece)
        cycle: RequestResponseCycle | None = connection.cycle  # None before the first request
        if cycle is not None and cycle.more_body:
            connection.connection_lost(None)  # nothing more will come: whoever waits for the rest is told
        if state.tasks:
            _, late = await asyncio.wait(set(state.tasks), timeout=PATIENCE_S)
            if late:
                raise FaultError("no answer")
        if not transport.is_closed:
            connection.connection_lost(None)
        return bytes(transport.written)
