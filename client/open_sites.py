"""The sites that this process keeps open: in a hospital one, in a simulation many.

A site stays open between messages, because the secrets of a session live in memory only.
"""

import threading
from functools import lru_cache
from pathlib import Path

from client.site import Site

_open: dict[Path, Site] = {}
_lock = threading.Lock()


def keep_open(site: Site) -> None:
    """Use this site from now on for its folder (the agent and the simulation open sites with their own settings)."""
    with _lock:
        _open[site.folder.path.resolve()] = site


def site_at(folder: str) -> Site:
    """Return the open site of a folder, opening it at the first call.

    The folder comes from the node's own configuration, never from a message or a run config.
    Raises: what ``Site`` raises on opening.
    """
    path = _resolved(folder)
    with _lock:
        if path not in _open:
            _open[path] = Site.open(path)
        return _open[path]


def forget(folder: Path) -> None:
    """Close a site: its session's secrets are gone, which the federation sees as a dropout."""
    with _lock:
        _open.pop(folder.resolve(), None)


@lru_cache(maxsize=4096)
def _resolved(folder: str) -> Path:
    """Return where a folder really is; remembered, because it is asked at each message."""
    return Path(folder).resolve()
