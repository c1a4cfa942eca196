"""Ports on this machine: free or taken, asked before anything starts, because a sentence then is read."""

import errno
import socket
from collections.abc import Collection, Mapping

from common.errors import PortTakenError

LAST_PORT = 65_535


def is_free(host: str, port: int) -> bool:
    """Tell whether nobody listens there; True also where it cannot be told (a host that is no address here)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1)
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def first_free(host: str, port: int, *, promised: Collection[int] = ()) -> int:
    """Return the first port from ``port`` on that nobody listens on, and that is not ``promised`` to somebody else.

    Raises: PortTakenError where there is none.
    """
    for candidate in range(port, LAST_PORT + 1):
        if candidate not in promised and is_free(host, candidate):
            return candidate
    raise PortTakenError(f"no port from {port} on is free on {host}")


def require_free(wanted: Mapping[str, tuple[str, int]], *, settings: str) -> None:
    """Refuse where another program listens on a port. ``wanted``: setting -> host and port; ``settings``: their file.

    Raises: PortTakenError.
    """
    for setting, (host, port) in wanted.items():
        if not is_free(host, port):
            raise PortTakenError(
                f"port {port} on {host} is taken by another program; end that one, or choose another {setting} in "
                f"{settings} (`ss -ltnp` shows who has it)"
            )
