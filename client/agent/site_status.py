"""What ``fedward-site status`` says: from the agent where one runs, and from the site's files in any case."""

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from client.agent.control_client import ControlClient
from client.agent.errors import AgentUnavailableError
from client.consent.continuity.losses import losses
from client.final_model.own_scores import read_own_scores, why_worse
from client.installation.audit_log import standing_approvals
from client.installation.config import read_site_config
from client.installation.folder import SiteFolder
from client.ledger.errors import LedgerBusyError
from common.control import site_control_pb2 as api
from common.errors import FedwardError
from common.processes.failing import failing
from common.processes.room import lack_of

RUNNING: Final = "running"
AWAY: Final = "away"


@dataclass(frozen=True)
class SiteStatus:
    """A site at this moment.

    ``agent``: "running" when one answers, else "away"; what follows ``processes`` is what it says. ``connection``: to
    the SuperNode (away, refused, up). ``studies``: plan digest -> name, of those that pass every check now; without an
    agent every standing approval of the audit log, unchecked and without its name. ``processes``: name -> process id,
    of those that live. ``worse_models``: plan digest -> sentence, where its newest model does clearly worse on this
    site's own held-out patients than an earlier one; it stays on this machine. ``failing``: name -> why,
    of processes that keep ending. ``lacking``: why nothing can be written to the site folder; empty where it can.
    ``left_s``: processor time that is left at most while engines are measured. ``lost``: of files whose loss loosens a
    promise, what is wrong (docs/lost-files.md): nothing is approved or trained before they are back.
    """

    site: str
    folder: str
    agent: str
    paused: bool
    studies: dict[str, str]
    processes: dict[str, int]
    connection: str = "unknown"
    failing: dict[str, str] = field(default_factory=dict)
    lacking: str = ""
    step: str = "unknown"
    round_number: int = 0
    plan: str = ""
    code: int = 0
    since_s: int = 0
    tasks: int = 0
    rejected: int = 0
    version: str = ""
    worse_models: dict[str, str] = field(default_factory=dict)
    left_s: int = 0
    lost: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the status as plain values."""
        return asdict(self)


def site_status(folder: SiteFolder) -> SiteStatus:
    """Return the status of a site folder. Raises: NotEnrolledError, ChainBrokenError, SiteConfigInvalidError."""
    config = read_site_config(folder.config)
    broken = failing(folder.state)
    known: dict[str, Any] = {
        "site": config.site.name,
        "folder": str(folder.path.resolve()),
        "paused": folder.paused.exists(),
        "processes": {name: number for name, number in _processes(folder.state).items() if name not in broken},
        "failing": broken,
        "lacking": lack_of(folder.path),
        "lost": lost_files(folder),
    }
    try:
        with ControlClient(folder.control_socket) as control:
            now = SiteStatus(**known, **_from_agent(control.status()))
    except AgentUnavailableError:
        now = SiteStatus(**known, agent=AWAY, studies=dict.fromkeys(sorted(standing_approvals(folder)), ""))
    return replace(now, worse_models=worse_models(folder, now.studies))


def lost_files(folder: SiteFolder) -> list[str]:
    """Return a sentence for each file that is lost, damaged or older than another shows, or why nobody can tell.

    A ledger that is being written to is not looked into: none then.
    """
    try:
        return [loss.text for loss in losses(folder)]
    except LedgerBusyError:
        return []
    except (FedwardError, sqlite3.Error) as error:
        why = str(error) if isinstance(error, FedwardError) else "a database failed"
        return [f"nobody can tell whether a file is: {why}"]


def worse_models(folder: SiteFolder, plans: Iterable[str]) -> dict[str, str]:
    """Return plan digest -> sentence of those plans whose newest model does clearly worse here than an earlier one."""
    found = {digest: why_worse(read_own_scores(folder.own_scores(digest))) for digest in plans}
    return {digest: sentence for digest, sentence in found.items() if sentence}


def step_name(step: api.Step) -> str:
    """Return a step as a word: ``STEP_MASKED`` is "masked"."""
    return str(api.Step.Name(step)).removeprefix("STEP_").lower()


def _from_agent(said: api.StatusReply) -> dict[str, Any]:
    return {
        "agent": RUNNING,
        "version": said.version,
        "connection": api.Connection.Name(said.connection).removeprefix("CONNECTION_").lower(),
        "studies": {study.plan_digest: study.name for study in said.studies},
        "step": step_name(said.last.step),
        "round_number": said.last.round_number,
        "plan": said.last.plan_digest,
        "code": said.last.code,
        "since_s": said.last.time_s,
        "left_s": said.last.left_s,
        "tasks": said.tasks,
        "rejected": said.rejected,
    }


def _processes(state: Path) -> dict[str, int]:
    """Return the living processes that have a file of their own, by name."""
    found: dict[str, int] = {}
    for file in sorted(state.glob("*.pid")):
        try:
            found[file.stem] = int(file.read_text(encoding="utf-8"))
            os.kill(found[file.stem], 0)
        except (OSError, ValueError):
            found.pop(file.stem, None)
    return found
