"""The path of the agent's socket: what a Unix socket's path may be, said before anything is started."""

import os
import stat
from pathlib import Path
from typing import Final

from client.agent.errors import AgentUnavailableError

MAX_SOCKET_PATH_BYTES: Final = 107  # sun_path of Linux, without its final zero (unix(7))


def require_socket_path(path: Path) -> None:
    """Raise AgentUnavailableError for a path that is too long for a Unix socket, or is taken by something else."""
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        raise AgentUnavailableError(
            f"{path}: {length} bytes, a Unix socket's path may have {MAX_SOCKET_PATH_BYTES}; "
            "move the site folder to a shorter path"
        )
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise AgentUnavailableError(f"{path}: is not a socket; move it away")
