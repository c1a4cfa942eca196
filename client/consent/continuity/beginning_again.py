"""A lost file begins again: by decision of a named person with a reason, at its price, and shown for ever after.

The audit log says it first (but of itself), the ledger says it too: each of the two shows it when the other is lost.
What is replaced is never deleted: it lies in the folder ``replaced``.
"""

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from client.consent.approval import require_name
from client.consent.continuity.decisions import decisions
from client.consent.continuity.ended import NO_ATTEMPT_AFTER
from client.consent.continuity.errors import RecordLostError
from client.consent.continuity.files import Lost, files_of
from client.consent.continuity.losses import Traces, losses, read_traces, sessions
from client.consent.continuity.opting_out import entries
from client.consent.continuity.promises import promises_of
from client.dicom.caches import lists_of_studies
from client.dicom.kept_opt_outs import KeptOptOuts
from client.dicom.pseudonyms import secret_check
from client.installation.audit_log import audit, last_mark
from client.installation.folder import SiteFolder
from client.installation.outbox import Outbox
from client.ledger.ledger import Ledger, Remark
from client.secagg.journal import SiteJournal
from common.errors import FedwardError
from common.plan.errors import PlanInvalidError
from common.secagg.stages import Kind
from common.trust.identity import create_secret_file, read_secret_file

LONGEST_REASON: Final = 300
TIGHTENING: Final = (Lost.LEDGER, Lost.JOURNAL)  # to begin them again only ever charges and forbids more


def begin_again(
    folder: SiteFolder,
    lost: Lost,
    *,
    person: str,
    reason: str,
    plan_files: Sequence[Path] = (),
    shown_elsewhere: bool = False,
) -> list[str]:
    """Let a lost file begin again; return the studies that pay for it. ``PRICES`` says how.

    ``shown_elsewhere``: that ledger or journal is older is known from outside of this folder (the heads that the
    coordinator keeps): allowed for these two alone, because they then only charge and forbid more.
    Raises: PlanInvalidError for a name or reason of no use; RecordLostError when the file is not lost, when another one
    must be decided first, or for a study whose promise nobody knows; LedgerBusyError, OSError.
    """
    require_name(person)
    if not 1 <= len(reason.strip()) <= LONGEST_REASON or not reason.isprintable():
        raise PlanInvalidError(f"the reason must have 1 to {LONGEST_REASON} printable characters")
    traces = read_traces(folder)
    if not (shown_elsewhere and lost in TIGHTENING) and lost not in {loss.lost for loss in losses(folder, traces)}:
        known = "; --shown-elsewhere, where the coordinator's heads show an older copy" if lost in TIGHTENING else ""
        raise RecordLostError(
            f"{lost}: nothing is lost, so nothing begins again and nothing was changed; `fedward-site check` shows the "
            f"rest{known}"
        )
    if shown_elsewhere and lost not in TIGHTENING:
        raise PlanInvalidError(f"--shown-elsewhere belongs to ledger and journal, not to {lost}; leave it out")
    if plan_files and lost is not Lost.LEDGER:
        raise PlanInvalidError(f"--plan belongs to the ledger, not to {lost}; leave it out")
    if lost is not Lost.AUDIT and traces.audit is None:
        raise RecordLostError("the audit log cannot be read, so no decision can be written down: decide on it first")
    if lost not in {Lost.AUDIT, Lost.LEDGER} and traces.ledger is None:
        raise RecordLostError("the privacy ledger cannot be read: decide on it first, so that it shows this decision")
    decision = _Decision(folder, traces, lost, person.strip(), reason.strip())
    return decision.carry_out(plan_files)


class _Decision:
    """One decision under way."""

    def __init__(self, folder: SiteFolder, traces: Traces, lost: Lost, person: str, reason: str) -> None:
        self._folder, self._traces, self._lost = folder, traces, lost
        self._person, self._reason = person, reason
        self._studies = sorted(traces.studies() | _named_by_files(folder))

    def carry_out(self, plan_files: Sequence[Path]) -> list[str]:
        """Do it; returns the studies that pay."""
        if self._lost is Lost.LEDGER:
            return self._ledger(plan_files)
        if self._lost is Lost.AUDIT:
            return self._audit()
        if self._lost is Lost.SECRET:
            _put_aside(self._folder, Lost.SECRET)
            if not self._folder.secret.exists():
                create_secret_file(self._folder.secret)
        if self._lost in {Lost.JOURNAL, Lost.SECRET}:
            self._say({"studies": self._studies, "secret": _check(self._folder), "opted_out": self._opted_out()})
            self._end_studies()
            return self._studies
        if self._lost is Lost.OUTBOX:
            self._say({})
            _put_aside(self._folder, Lost.OUTBOX)
            before = {study: sessions(study, self._traces) for study in self._studies}
            Outbox(self._folder.outbox).begin_again({study: count for study, count in before.items() if count})
            return []
        if self._opted_out() == 0:
            _put_aside(self._folder, Lost.WITHDRAWALS)  # damaged, or sealed with another secret
        self._say({"opted_out": self._opted_out()})
        return []

    def _ledger(self, plan_files: Sequence[Path]) -> list[str]:
        """Make the new ledger aside, with everything in it, and only then put it in its place."""
        assert self._traces.audit is not None  # noqa: S101 (begin_again has looked)
        promises, missing = promises_of(self._folder, self._studies, self._traces.audit, plan_files)
        if missing:
            raise RecordLostError(
                f"nobody here knows what {len(missing)} studies promised: {', '.join(missing)}. Ask the coordinator "
                "for their plans and give each with --plan FILE; nothing was changed"
            )
        self._say({"studies": self._studies}, in_ledger=False)
        aside = self._folder.path / "ledger.new"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        new = SiteFolder(aside)
        with Ledger.create(new.ledger) as ledger:
            for each in decisions(self._traces):
                ledger.note(Remark(each.file, each.person, each.reason, last_mark(self._folder), each.time_s))
            ledger.charge_whole(promises, remark=self._remark())
        _put_aside(self._folder, Lost.LEDGER)
        for file, place in zip(*(files_of(where, Lost.LEDGER)[1::-1] for where in (new, self._folder)), strict=True):
            file.rename(place)  # the anchor first: alone it keeps a ledger from being begun
        shutil.rmtree(aside)
        return sorted(promises)

    def _audit(self) -> list[str]:
        _put_aside(self._folder, Lost.AUDIT)
        for each in decisions(self._traces):
            line = {"what": "begun again", "file": each.file, "person": each.person, "reason": each.reason}
            audit(self._folder, {**line, "time": each.time_s})
        self._say({"studies": self._studies, "secret": _check(self._folder), "opted_out": self._opted_out()})
        return []

    def _end_studies(self) -> None:
        """Forbid every attempt of every study known here."""
        if self._lost is Lost.JOURNAL:
            _put_aside(self._folder, Lost.JOURNAL)
        with closing(SiteJournal(self._folder.journal)) as journal:
            for study in self._studies:
                sent = (self._traces.outbox or {}).get(study, Counter())[Kind.KEYS]
                _, begun, _ = journal.counts(bytes.fromhex(study))
                journal.tell(bytes.fromhex(study), max(0, sent - begun) + journal.told(bytes.fromhex(study)))
                journal.skip_to(bytes.fromhex(study), NO_ATTEMPT_AFTER)

    def _say(self, facts: dict[str, Any], *, in_ledger: bool = True) -> None:
        """Write the decision into the audit log, and into the ledger where there is one to be trusted."""
        line = {"what": "begun again", "file": self._lost.value, "person": self._person, "reason": self._reason}
        audit(self._folder, {**line, **facts, "time": int(time.time())})
        if in_ledger and self._traces.ledger is not None:
            with Ledger.open(self._folder.ledger, ceiling=0.0) as ledger:
                ledger.note(self._remark())

    def _remark(self) -> Remark:
        return Remark(self._lost.value, self._person, self._reason, last_mark(self._folder))

    def _opted_out(self) -> int:
        with suppress(FedwardError):
            return entries(KeptOptOuts(self._folder.opted_out, read_secret_file(self._folder.secret)).load())
        return 0


def _named_by_files(folder: SiteFolder) -> set[str]:
    """Return the digests of studies that plans and lists of patients are named after."""
    names = [each.name for place in (folder.plans, folder.withdrawn_plans) for each in place.glob("*") if each.is_dir()]
    names += [file.stem for place in (folder.studies, *lists_of_studies(folder)) for file in place.glob("*.sealed")]
    return {name for name in names if len(name) == 64 and set(name) <= set("0123456789abcdef")}


def _put_aside(folder: SiteFolder, lost: Lost) -> None:
    """Move a file and what belongs to it into ``replaced``, under a number that is free."""
    present = [file for file in files_of(folder, lost) if file.exists()]
    if not present:
        return
    (folder.path / "replaced").mkdir(mode=0o700, exist_ok=True)
    number = 1
    while (place := folder.path / "replaced" / f"{lost}-{number}").exists():
        number += 1
    place.mkdir(mode=0o700)
    for file in present:
        file.rename(place / file.name)


def _check(folder: SiteFolder) -> str:
    return secret_check(read_secret_file(folder.secret))
