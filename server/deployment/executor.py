"""The executor: nodes follow the roster, wanted studies run, and no other task is ever taken.

A step every ``poll_interval_s``: (1) processes that ended; (2) runs that have no process of ours are stopped: it died,
or the executor started again, or somebody else started a run, who has no business here; (3) the list of nodes; (4)
studies to start: first a process; once it has loaded everything a Flower run of the pointer is started, claimed and
handed to it.

A SuperLink that is away is waited for; the studies' processes wait too, and go on when it is back within a minute.
"""

import json
import logging
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from common.errors import FedwardError, of_system
from common.files import replace_atomically
from common.flower.environment import require_flower
from server.deployment.alarms import Alarms
from server.deployment.loopback_tls import loopback_authority
from server.deployment.registrations import follow_roster
from server.deployment.study_keeping import KeptStudy
from server.deployment.superlink_client import AwayError, SuperLinkClient
from server.federation.admission import node_keys
from server.federation.config import read_coordinator_config
from server.federation.folder import FederationFolder

ROSTER_PERIOD_S: Final = 5.0
HOUSEKEEPING_PERIOD_S: Final = 3.0
ALARMS_PERIOD_S: Final = 5.0
LEAVE_S: Final = 3.0
ENDING_TIMEOUT_S: Final = 8.0
MISSES_TO_BE_AWAY: Final = 2  # one is an idle connection that the SuperLink closed

_log = logging.getLogger("fedward.executor")


@dataclass
class Executor:
    """The loop's state. ``online``: which sites' nodes are, as seen last. ``away_since_unix_s``: of the SuperLink."""

    folder: FederationFolder
    client: SuperLinkClient
    alarms: Alarms
    studies: dict[str, KeptStudy] = field(default_factory=dict)
    online: dict[str, bool] = field(default_factory=dict)
    misses: int = 0  # steps in a row to which the SuperLink did not answer
    away_since_unix_s: float | None = None
    _leave_at: dict[int, float] = field(default_factory=dict)  # runs without a process -> when they are stopped
    _roster_seen: object = None
    _roster_at: float = 0.0
    _alarms_at: float = 0.0
    _housekeeping_at: float = 0.0

    def step(self) -> None:
        """Look once at everything. Raises nothing while the SuperLink is away."""
        self._look_for_alarms()
        try:
            self._note_ends()
            self._stop_strangers()
            self._follow_roster()
            self._start_wanted()
        except AwayError as error:
            self.misses += 1
            if self.misses == MISSES_TO_BE_AWAY:
                _log.warning("the SuperLink is away (%s)", type(error).__name__)
                self._roster_at = self._housekeeping_at = 0.0
                self.away_since_unix_s = time.time()
                write_facts(self)
        else:
            self.misses = 0
            if self.away_since_unix_s is not None:
                self.away_since_unix_s = None
                write_facts(self)

    def end(self) -> None:
        """Ask the studies' processes to end, and wait a little."""
        for study in self.studies.values():
            study.end()
        until = time.monotonic() + ENDING_TIMEOUT_S
        while any(study.process is not None for study in self.studies.values()) and time.monotonic() < until:
            self._note_ends()
            time.sleep(0.1)

    def _look_for_alarms(self) -> None:
        if time.monotonic() >= self._alarms_at:
            failed = self.alarms.failure
            self.alarms.look(time.monotonic())
            self._alarms_at = time.monotonic() + ALARMS_PERIOD_S
            if self.alarms.failure != failed:
                write_facts(self)

    def _note_ends(self) -> None:
        for study in self.studies.values():
            ended = study.note_end()
            if ended is None:
                continue
            write_facts(self)
            self._housekeeping_at = 0.0

    def _follow_roster(self) -> None:
        version = self.folder.roster.stat().st_mtime_ns if self.folder.roster.exists() else None
        if version == self._roster_seen and time.monotonic() < self._roster_at:
            return
        online = follow_roster(self.client, node_keys(self.folder))
        self._roster_seen, self._roster_at = version, time.monotonic() + ROSTER_PERIOD_S
        self.online = online
        write_facts(self)

    def _start_wanted(self) -> None:
        for name in self.folder.study_names():
            study = self.studies.setdefault(name, KeptStudy(self.folder, name))
            study.tend()
            if study.awaits_token:
                self._start(study)

    def _start(self, study: KeptStudy) -> None:
        run_id = self.client.start_run(study.name)
        task = self.client.claim()
        while task is not None and task.run_id != run_id:  # somebody else's: claimed, and never run
            task = self.client.claim()
        if task is None:
            self.client.stop_run(run_id)
            return
        try:
            study.begin(run_id, task.token)
        except OSError:
            self.client.stop_run(run_id)
            raise
        write_facts(self)

    def _stop_strangers(self) -> None:
        """Stop runs without a process of ours, after a while; listing runs also lets Flower drop what ended ones left.

        Not at once: a message that is on its way to a site arrives whole first. Soon: one whose parts will never come,
        because the process died while it sent them, holds up its site until the run is stopped.
        """
        now = time.monotonic()
        if now < self._housekeeping_at:
            return
        ours = {study.run_id for study in self.studies.values()}
        strangers = [run_id for run_id in self.client.unfinished_runs() if run_id not in ours]
        self._leave_at = {run_id: self._leave_at.get(run_id, now + LEAVE_S) for run_id in strangers}
        for run_id in [run_id for run_id, leave_at in self._leave_at.items() if now >= leave_at]:
            _log.warning("run %d has no process here and is stopped", run_id)
            self.client.stop_run(run_id)
        self._housekeeping_at = now + HOUSEKEEPING_PERIOD_S


def write_facts(executor: Executor) -> None:
    """Write what only the executor knows, for ``fedward-server status``: sites online, and the studies' processes."""
    facts = {
        "unix_s": time.time(),
        "online": executor.online,
        "alarm_failure": executor.alarms.failure,
        "superlink_away_since_unix_s": executor.away_since_unix_s,
        "studies": {
            name: {"running": study.process is not None, "starts": study.starts}
            for name, study in executor.studies.items()
        },
    }
    replace_atomically(executor.folder.state / "executor.json", json.dumps(facts).encode())


def main(folder: FederationFolder) -> None:
    """Work until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each request
    require_flower()
    config, asked = read_coordinator_config(folder.config), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    authority, secret = loopback_authority(folder).read_bytes(), folder.executor_secret.read_bytes()
    client = SuperLinkClient(config.superlink_address, authority=authority, secret=secret)
    executor = Executor(folder, client, Alarms(folder, config.alarms))
    folder.state.mkdir(mode=0o700, exist_ok=True)
    while not asked.wait(config.running.poll_interval_s):
        try:
            executor.step()
        except (FedwardError, OSError) as error:  # a damaged roster, a full disk: the studies under way go on
            _log.error("%s", of_system(error) or error)
            asked.wait(ROSTER_PERIOD_S)
    executor.end()
    client.close()
