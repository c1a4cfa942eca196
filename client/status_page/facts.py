"""What the hospital's page shows: from the agent where it answers, from the site's own files always.

Files are the truth: ledger, outbox, audit log and pause are read from them, so the page is right without an agent too.
What did not change on disk is not computed again.
"""

import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from client.agent.control_client import ControlClient
from client.agent.errors import AgentUnavailableError
from client.agent.site_status import worse_models
from client.consent.approval import CheckedPlan, approved_plans
from client.consent.continuity.decisions import Decision, decisions
from client.consent.continuity.losses import losses, read_traces
from client.consent.policy import read_policy
from client.installation.audit_log import AUDIT_NAME
from client.installation.folder import SiteFolder
from client.installation.outbox import NAME as OUTBOX_NAME
from client.ledger.ledger import Ledger
from client.ledger.report import LedgerReport, report
from client.status_page.background import Background, Known
from common.control.site_control_pb2 import StatusReply
from common.errors import FedwardError
from common.trust.hash_chain import HashChain
from common.web.freshness import Mark, mark_of

LAST_LINES: Final = 12


@dataclass(frozen=True)
class Records:
    """A hash-chained record: its lines, and the hash of the last one."""

    entries: tuple[dict[str, Any], ...] = ()
    head: str = ""

    def last(self, count: int = LAST_LINES) -> list[dict[str, Any]]:
        """Return the newest lines, newest first."""
        return list(self.entries[: -count - 1 : -1])


@dataclass(frozen=True, eq=False)
class SiteFacts:
    """The site at one moment.

    agent: None when it does not answer. ledger, outbox, audit, plans: None where the file cannot be trusted or read
    (``troubles`` then says why, one sentence each), or is still being accounted. lost: a sentence for each file that
    shows less than others do. begun_again: decisions about lost files, shown for ever.
    """

    name: str
    agent: StatusReply | None
    paused: bool
    ledger: LedgerReport | None
    outbox: Records | None
    audit: Records | None
    plans: dict[str, CheckedPlan] | None
    troubles: tuple[str, ...]
    lost: tuple[str, ...] = ()
    begun_again: tuple[Decision, ...] = ()

    def approved_by(self, digest: str) -> tuple[str, float] | None:
        """Return who approved a plan last, and when (seconds since 1970)."""
        for entry in reversed(self.audit.entries if self.audit else ()):
            if entry.get("what") == "approved" and entry.get("plan") == digest:
                return str(entry.get("approver", "")), float(entry.get("time", 0))
        return None

    def paused_by(self) -> tuple[str, float] | None:
        """Return who paused the site last, and when."""
        for entry in reversed(self.audit.entries if self.audit else ()):
            if entry.get("what") == "paused":
                return str(entry.get("person", "")), float(entry.get("time", 0))
        return None


class SiteReader:
    """Reads one site folder again and again. Safe for several threads."""

    def __init__(self, folder: SiteFolder, name: str) -> None:
        self.folder, self.name = folder, name
        self._lock = threading.Lock()
        self._records: dict[Path, tuple[Mark, Records]] = {}
        self._ledger = Background(lambda: _ledger_report(folder))  # takes seconds: an accountant works
        self._lost = Background(lambda: _lost_files(folder))  # reads every record from its first line
        self._plans = Background(lambda: approved_plans(folder))  # likewise: every check of every plan

    def read(self) -> SiteFacts:
        """Return the site as it is now; what cannot be read is said in ``troubles``, and never raised."""
        folder = self.folder
        ledger_files = [folder.ledger, folder.ledger.with_name(folder.ledger.name + "-wal"), folder.policy]
        plan_files = [folder.audit, folder.policy, folder.roster, folder.key, *sorted(folder.plans.glob("*/*"))]
        ledger, plans = self._ledger.look(mark_of(*ledger_files)), self._plans.look(mark_of(*plan_files))
        lost = self._lost.look(mark_of(*ledger_files, folder.outbox, folder.audit, folder.journal, folder.opted_out))
        outbox, audit = self._record(folder.outbox, OUTBOX_NAME), self._record(folder.audit, AUDIT_NAME)
        known: dict[str, Known[Any]] = {
            "privacy ledger": ledger,
            "approved plans": plans,
            "outbox": outbox,
            "audit log": audit,
            "lost files": lost,
        }
        return SiteFacts(
            name=self.name,
            agent=self._agent(),
            paused=folder.paused.exists(),
            ledger=ledger.value,
            outbox=outbox.value,
            audit=audit.value,
            plans=plans.value,
            troubles=(
                *(f"{what}: {each.trouble}" for what, each in known.items() if each.trouble),
                *(f"model: {sentence}" for sentence in worse_models(folder, plans.value or ()).values()),
            ),
            lost=lost.value[0] if lost.value else (),
            begun_again=lost.value[1] if lost.value else (),
        )

    def wait(self, timeout_s: float) -> None:
        """Wait until ledger, plans and losses, as they were at the last ``read``, are computed."""
        self._lost.wait(timeout_s)
        self._ledger.wait(timeout_s)
        self._plans.wait(timeout_s)

    def _record(self, path: Path, name: str) -> Known[Records]:
        mark = mark_of(path)
        with self._lock:
            if path not in self._records or self._records[path][0] != mark:
                try:
                    self._records[path] = mark, _records(path, name)
                except (FedwardError, OSError) as error:
                    return Known(trouble=str(error) if isinstance(error, FedwardError) else type(error).__name__)
            return Known(self._records[path][1])

    def _agent(self) -> StatusReply | None:
        if not self.folder.control_socket.exists():
            return None
        try:
            with ControlClient(self.folder.control_socket) as client:
                return client.status()
        except AgentUnavailableError:
            return None


def _ledger_report(folder: SiteFolder) -> LedgerReport:
    ceiling = read_policy(folder.policy).epsilon_ceiling
    with Ledger.open(folder.ledger, ceiling=ceiling) as ledger:
        spending = ledger.spending()
    return report(spending, ceiling=ceiling)


def _lost_files(folder: SiteFolder) -> tuple[tuple[str, ...], tuple[Decision, ...]]:
    """Return a sentence for each file that is lost, and every decision that one begins again."""
    traces = read_traces(folder)
    unread = set(traces.unreadable.values())  # said already, each by its own record
    found = [f"lost file ({loss.lost}): {loss.text}" for loss in losses(folder, traces) if loss.text not in unread]
    return tuple(found), tuple(decisions(traces))


def _records(path: Path, name: str) -> Records:
    """Return a record, verified from its first line; empty where there is none yet. Raises: ChainBrokenError."""
    if not path.exists():
        return Records()
    with closing(HashChain(path, name)) as chain:
        return Records(tuple(link.entry for link in chain.links()), chain.head)
