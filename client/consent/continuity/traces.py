"""What each file of a site folder shows of the studies worked on here: read, verified, compared by ``losses``.

In the order in which an attempt leaves its traces, each on disk before the next:

    journal attempt, ledger RESERVED, outbox KEYS, outbox SHARES, ledger SPENT, outbox MASKED, journal release

so whoever has a later trace of an attempt has every earlier one, and a file with fewer has lost them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from client.installation.audit_log import audit_links
from client.installation.folder import SiteFolder
from client.installation.outbox import BEGUN_AGAIN, NAME
from client.ledger.budget import EntryKind, Spending
from client.ledger.ledger import Ledger
from client.secagg.journal import SiteJournal
from common.secagg.stages import Kind
from common.trust.hash_chain import HashChain

COUNTED: Final = (Kind.KEYS, Kind.SHARES, Kind.MASKED)


@dataclass
class AuditTraces:
    """The audit log: hashes of its lines, studies ever approved, studies it was told of when it began again.

    promises: what approved studies promised, as their lines say. opted_out: patients who opted out, None before the
    first. secret: check value of the site secret, as last noted. joined: whether the site joined a federation.
    """

    hashes: list[str] = field(default_factory=list)
    approved: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    promises: dict[str, dict[str, Any]] = field(default_factory=dict)
    opted_out: int | None = None
    secret: str = ""
    joined: bool = False
    begun_again: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class LedgerTraces:
    """The ledger: what each study spent, and the files that it saw begin again.

    whole: studies charged all that they promised. log: newest line of the audit log that an entry was made after.
    """

    spending: dict[str, Spending] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    begun_again: list[dict[str, Any]] = field(default_factory=list)
    log: tuple[int, str] = (0, "")

    def spent(self, study: str) -> int:
        """Return how many attempts of a study were SPENT here."""
        known = self.spending.get(study)
        return sum(kind is EntryKind.SPENT for kind in known.attempts.values()) if known else 0

    def last_attempt(self, study: str) -> int:
        """Return the highest attempt of a study, 0 before the first."""
        known = self.spending.get(study)
        return max(known.attempts, default=0) if known else 0


def audit_traces(folder: SiteFolder) -> AuditTraces:
    """Read the audit log. Raises: ChainBrokenError."""
    found = AuditTraces()
    for link in audit_links(folder):
        entry, what = link.entry, link.entry["what"]
        found.hashes.append(link.hash)
        if what == "approved":
            found.approved.add(entry["plan"])
            if "promise" in entry:
                found.promises[entry["plan"]] = entry
        elif what == "begun again":
            found.begun_again.append(entry)
            found.told |= set(entry.get("studies", ()))
        found.joined |= what == "joined"
        if "opted_out" in entry:  # a decision may lower it, nothing else
            decided = what == "begun again"
            found.opted_out = entry["opted_out"] if decided else max(entry["opted_out"], found.opted_out or 0)
        found.secret = entry.get("secret", found.secret)
    return found


def ledger_traces(folder: SiteFolder) -> LedgerTraces:
    """Read the ledger. Raises: LedgerInvalidError, also where there is none; LedgerBusyError."""
    with Ledger.open(folder.ledger, ceiling=0.0) as ledger:
        spending = {each.study: each for each in ledger.spending()}
        remarks = ledger.entries(EntryKind.BEGUN_AGAIN)
        marks = ledger.entries(EntryKind.OPENED, EntryKind.BEGUN_AGAIN)
        whole = {body["study"] for body in ledger.entries(EntryKind.WHOLE)}
    log = (marks[-1]["audit_number"], marks[-1]["audit_hash"]) if marks else (0, "")
    return LedgerTraces(spending, whole, [dict(body) for body in remarks], log)


def outbox_traces(folder: SiteFolder) -> dict[str, Counter[str]]:
    """Count, for each study, different messages of each kind; a message sent twice is one. Raises: ChainBrokenError.

    What a new outbox was told that left before counts too.
    """
    seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for entry in _outbox_entries(folder):
        if entry["kind"] == BEGUN_AGAIN:
            for kind in (Kind.KEYS, Kind.SHARES):
                counts[entry["study"]][kind] += entry["before"]
        elif entry["study"]:
            seen[entry["study"], entry["kind"]].add(entry["sha256"])
    for (study, sent), digests in seen.items():
        counts[study][sent] += len(digests)
    return dict(counts)


def journal_traces(folder: SiteFolder) -> dict[str, tuple[int, int, int]]:
    """Return for each study its last attempt, how many it shows (with those it was told of), and how many it opened."""
    if not folder.journal.exists():
        return {}
    with closing(SiteJournal(folder.journal)) as journal:
        return {plan.hex(): journal.counts(plan) for plan in journal.plans()}


def _outbox_entries(folder: SiteFolder) -> Iterator[dict[str, Any]]:
    if folder.outbox.exists():
        with closing(HashChain(folder.outbox, NAME)) as chain:
            yield from (link.entry for link in chain.links())
