"""The agent's process from start to end: one site, one SuperNode, one socket.

1. hold the folder (one agent at a time), take only 0600 from here on
2. open the site: identity, roster, policy, records in order, or the process ends with that error's exit code;
   start the process that trains (``client.trainer``), if there is a study to train for
3. listen on the socket, then take tasks until SIGTERM or SIGINT; between them engines are tried for approved plans
"""

import logging
import os
import signal
import time
from pathlib import Path
from typing import Final

from client.agent.control import SUPERNODE, ControlServer, SiteControl
from client.agent.flower_runtime import Runtime
from client.agent.pace import Pace
from client.agent.progress import ProgressFeed
from client.agent.task_loop import TaskLoop
from client.agent.watched_site import WatchedSite
from client.installation.config import read_site_config
from client.installation.folder import SiteFolder
from client.processes.shapes_beside import ShapesBeside
from client.site import keep_open
from common.control.site_control_pb2 import Connection
from common.processes.folder_lock import hold
from common.trust.identity import read_secret_file

EXPIRE_EVERY_S: Final = 5.0

_log = logging.getLogger("fedward.agent")


class Agent:
    """A site in use. ``run`` works on the calling thread, which must be the main one (signals)."""

    def __init__(self, path: Path) -> None:
        """Open everything.

        Raises: AlreadyRunningError, AgentUnavailableError, SiteConfigInvalidError, and what ``client.site.Site``
        raises for a folder that is not in order.
        """
        self._folder = folder = SiteFolder(path)
        folder.require()
        self._lock = hold(folder.state / "agent.lock")
        os.umask(0o077)
        config = read_site_config(folder.config)
        self._feed = ProgressFeed()
        shapes_of = ShapesBeside()
        self._site = WatchedSite(folder, config.speed, self._feed, shapes_of)
        keep_open(self._site)
        self._runtime = Runtime(f"127.0.0.1:{config.network.runtime_port}", read_secret_file(folder.runtime_secret))
        self._loop = TaskLoop(
            self._runtime,
            folder=folder.path,
            claim_file=folder.state / "task.json",
            feed=self._feed,
            pace=Pace(config.network.poll_interval_s),
            between=self._between,
        )
        control = SiteControl(folder, self._site.site_id, self._feed, self._loop, shapes_of)
        self._control = ControlServer(folder, control)
        self._expired_at = time.monotonic()

    def run(self) -> None:
        """Take tasks until SIGTERM or SIGINT. Ends the process's part in everything, sessions included."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._loop.end())
        _log.info("%s: ready", self._site.site_id)
        try:
            self._loop.run()
        finally:
            self._feed.close()
            self._control.close()
            self._runtime.close()
            self._site.close()
            os.close(self._lock)

    def _between(self) -> None:
        self._site.warm_up()
        self._control.report(SUPERNODE, is_well=self._loop.connection == Connection.CONNECTION_UP)
        if time.monotonic() - self._expired_at >= EXPIRE_EVERY_S:
            self._site.expire()
            self._expired_at = time.monotonic()
