"""The sites that this process keeps open: in a hospital one, in a simulation many.

A site stays open between messages, because the secrets of a session live in memory only.
"""

import threading
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
    path = Path(folder).resolve()
    with _lock:
        if path not in _open:
            _open[path] = Site.open(path)
        return _open[path]


def forget(folder: Path) -> None:
    """Close a site: its session's secrets are gone, which the federation sees as a dropout."""
    with _lock:
        _open.pop(folder.resolve(), None)
