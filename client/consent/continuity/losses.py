"""Which files of a site folder are lost or older than others show; rule and table: ``docs/lost-files.md``."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from client.consent.continuity.errors import RecordLostError
from client.consent.continuity.files import Lost, signs_of_use
from client.consent.continuity.opting_out import covers, entries
from client.consent.continuity.promises import is_private
from client.consent.continuity.traces import (
    AuditTraces,
    LedgerTraces,
    audit_traces,
    journal_traces,
    ledger_traces,
    outbox_traces,
)
from client.dicom.caches import opened_caches
from client.dicom.errors import CacheInvalidError
from client.dicom.kept_opt_outs import KeptOptOuts
from client.dicom.pseudonyms import secret_check
from client.dicom.withdrawals import load_withdrawn
from client.errors import JournalDamagedError
from client.installation.folder import SiteFolder
from client.ledger.errors import LedgerInvalidError
from common.errors import FileUnreadableError
from common.secagg.stages import Kind
from common.trust.errors import ChainBrokenError
from common.trust.identity import read_secret_file

Found = TypeVar("Found")


@dataclass(frozen=True)
class Loss:
    """One file that shows less than others do, and how: one sentence."""

    lost: Lost
    text: str


@dataclass
class Traces:
    """All traces of a site; a file that cannot be read is None or empty, and ``unreadable`` says why."""

    audit: AuditTraces | None
    ledger: LedgerTraces | None
    outbox: dict[str, Counter[str]] | None
    journal: dict[str, tuple[int, int, int]]
    unreadable: dict[Lost, str] = field(default_factory=dict)

    def studies(self) -> set[str]:
        """Return every study that any of the files knows."""
        found = set(self.journal) | set(self.outbox or {})
        if self.audit:
            found |= self.audit.approved | self.audit.told
        return found | set(self.ledger.spending if self.ledger else ())


def read_traces(folder: SiteFolder) -> Traces:
    """Read every file; one that is missing or damaged does not hide the others."""
    unreadable: dict[Lost, str] = {}

    def tried(lost: Lost, read: Callable[[SiteFolder], Found]) -> Found | None:
        try:
            return read(folder)
        except (ChainBrokenError, LedgerInvalidError, JournalDamagedError) as error:
            unreadable[lost] = str(error)
            return None

    return Traces(
        tried(Lost.AUDIT, audit_traces),
        tried(Lost.LEDGER, ledger_traces),
        tried(Lost.OUTBOX, outbox_traces),
        tried(Lost.JOURNAL, journal_traces) or {},
        unreadable,
    )


def losses(folder: SiteFolder, traces: Traces | None = None) -> list[Loss]:
    """Return every file that is lost, damaged, or older than another file shows; empty for a site in order.

    A site that was never used, and has no ledger yet, has lost nothing.
    Raises: KeyExposedError, KeyInvalidError, LedgerBusyError, sqlite3.Error.
    """
    found = traces or read_traces(folder)
    if not folder.ledger.exists() and not signs_of_use(folder):
        return []
    looks = (_ledger, _journal, _outbox, _audit, _opt_outs, _secret)
    return [Loss(Lost(lost), text) for lost, text in found.unreadable.items()] + [
        loss for look in looks for loss in look(folder, found)
    ]


def require_whole(folder: SiteFolder, *, only: Lost | None = None) -> None:
    """Raise RecordLostError, naming the first file and what to do, unless every file is as new as the others show.

    ``only``: looks at this file alone.
    """
    for loss in losses(folder):
        if only in {None, loss.lost}:
            raise _lost(loss)


def _lost(loss: Loss) -> RecordLostError:
    return RecordLostError(
        f"{loss.text}. This site takes part in nothing until the newest copy is back from a backup; where none can be "
        f"found, a named person decides: `fedward-site begin-again {loss.lost} --by NAME --reason TEXT` "
        "(docs/lost-files.md)"
    )


def _ledger(folder: SiteFolder, found: Traces) -> Iterator[Loss]:
    if found.ledger is None:
        return
    for study in sorted(found.studies() - found.ledger.whole):
        left = max((found.outbox or {}).get(study, Counter())[Kind.MASKED], found.journal.get(study, (0, 0, 0))[2])
        if left > found.ledger.spent(study) and is_private(folder, study, found.audit):
            text = f"the privacy ledger has {found.ledger.spent(study)} spent attempts of study {study[:12]}…, but "
            yield Loss(Lost.LEDGER, f"{text}{left} updates left this site: it is an older copy")


def _journal(folder: SiteFolder, found: Traces) -> Iterator[Loss]:
    del folder
    if Lost.JOURNAL in found.unreadable:
        return
    for study in sorted(found.studies()):
        last, begun, _ = found.journal.get(study, (0, 0, 0))
        known = found.ledger.last_attempt(study) if found.ledger else 0
        sent = (found.outbox or {}).get(study, Counter())[Kind.KEYS]
        if known > last or sent > begun:
            text = f"the journal knows {begun} attempts of study {study[:12]}…, the last is {last}; others show "
            yield Loss(Lost.JOURNAL, f"{text}{sent} attempts, up to {max(known, last)}: it is missing or an older copy")


def _outbox(folder: SiteFolder, found: Traces) -> Iterator[Loss]:
    del folder
    if found.outbox is None:
        return
    for study in sorted(found.studies()):
        shown, before = found.outbox.get(study, Counter())[Kind.SHARES], sessions(study, found)
        if before > shown:
            text = f"the outbox has {shown} sessions of study {study[:12]}…, but {before} were finished"
            yield Loss(Lost.OUTBOX, f"{text}: it is missing or an older copy")


def sessions(study: str, found: Traces) -> int:
    """Return how many sessions of a study ledger and journal show to have come as far as a masked update."""
    spent = found.ledger.spent(study) if found.ledger else 0
    return max(spent, found.journal.get(study, (0, 0, 0))[2])


def _audit(folder: SiteFolder, found: Traces) -> Iterator[Loss]:
    if found.audit is None:
        return
    number, known = found.ledger.log if found.ledger else (0, "")
    if number and found.audit.hashes[number - 1 : number] != [known]:
        text = f"the audit log does not hold its line {number}, which the privacy ledger saw"
        yield Loss(Lost.AUDIT, f"{text}: it is missing or another copy")
    elif unknown := (set(found.journal) | set(found.outbox or {})) - found.audit.approved - found.audit.told:
        text = f"study {min(unknown)[:12]}… was worked on here, but the audit log knows no approval of it"
        yield Loss(Lost.AUDIT, f"{text}: it is missing or an older copy")
    elif folder.kit.exists() and not found.audit.joined and not found.audit.begun_again:
        yield Loss(Lost.AUDIT, "this site joined a federation, but the audit log does not know of it: it is missing")


def require_opt_outs(folder: SiteFolder) -> None:
    """Raise RecordLostError when the site's list of opt-outs is lost: nobody's scans are read before it is back."""
    audit = audit_traces(folder)
    for loss in _short_list(folder, audit):
        raise _lost(loss)


def _opt_outs(folder: SiteFolder, found: Traces) -> Iterator[Loss]:
    if found.audit is None:
        return
    yield from _short_list(folder, found.audit)
    with suppress(CacheInvalidError, FileUnreadableError):
        secret = read_secret_file(folder.secret)
        kept = KeptOptOuts(folder.opted_out, secret).load()
        for cache in opened_caches(folder, secret):
            with suppress(CacheInvalidError):  # one that is damaged stops its own study alone
                if not covers(load_withdrawn(cache.path, cache.vault), kept):
                    text = f"{cache.path.relative_to(folder.path)} is an older copy, which still holds patients who "
                    yield Loss(Lost.WITHDRAWALS, f"{text}opted out since: `fedward-site ingest` brings it up to date")


def _short_list(folder: SiteFolder, audit: AuditTraces) -> Iterator[Loss]:
    known = 0
    with suppress(CacheInvalidError, FileUnreadableError):
        known = entries(KeptOptOuts(folder.opted_out, read_secret_file(folder.secret)).load())
    if known < (audit.opted_out or 0):
        text = f"the list of who opted out (opted_out.sealed) has {known} entries, it had {audit.opted_out}"
        yield Loss(Lost.WITHDRAWALS, f"{text}: without a copy, name all of them again with `fedward-site withdraw`")


def _secret(folder: SiteFolder, found: Traces) -> Iterator[Loss]:
    known = found.audit.secret if found.audit else ""
    if known and not folder.secret.exists():
        yield Loss(Lost.SECRET, "site.secret is missing")
    elif known and secret_check(read_secret_file(folder.secret)) != known:
        yield Loss(Lost.SECRET, "site.secret is another one than the studies here began with")
