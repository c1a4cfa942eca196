"""Serving a page on 127.0.0.1 and nowhere else, until the process is told to end."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from common.errors import FileUnreadableError
from common.web.door import Door
from common.web.page_token import FILE_NAME, page_token

HOST: Final = "127.0.0.1"
MOST_CONNECTIONS: Final = 32
MAX_REQUEST_LINE_BYTES: Final = 16 * 1024


def serve_page(make_app: Callable[[], ASGIApp], folder: Path, *, port: int, on_ready: Callable[[int], None]) -> None:
    """Serve the page of ``folder``, whose token lies in it, until SIGTERM or SIGINT.

    ``port`` 0 takes a free one; ``on_ready`` gets the port that is listened on.
    Raises: FileUnreadableError when the port cannot be had; what the token's file raises.
    """
    listener = _listener(port)
    taken = listener.getsockname()[1]
    token_file = folder / FILE_NAME
    page_token(token_file)  # made now, and read anew at each request: deleting it takes effect at once
    os.umask(0o077)
    door = Door(make_app(), lambda: page_token(token_file), port=taken)
    settings = uvicorn.Config(
        door,
        log_level="warning",
        access_log=False,  # addresses may hold the token
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_REQUEST_LINE_BYTES,
        timeout_graceful_shutdown=2,
    )
    on_ready(taken)
    uvicorn.Server(settings).run(sockets=[listener])


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # from here on a visitor waits instead of being turned away
    except OSError as error:
        listener.close()
        raise FileUnreadableError(
            f"{HOST}:{port}: the status page cannot listen there ({error.strerror}); free the port or set another"
        ) from None
    return listener
