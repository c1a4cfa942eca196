"""After a backup was played back: the journal is told which attempts are over, and what other files show of them."""

from collections import Counter
from contextlib import closing

from client.consent.continuity.ended import NO_ATTEMPT_AFTER
from client.consent.continuity.errors import RecordLostError
from client.consent.continuity.losses import read_traces
from client.consent.continuity.promises import is_private
from client.installation.folder import SiteFolder
from client.secagg.journal import SiteJournal
from common.secagg.stages import Kind


def tell_journal(folder: SiteFolder, study: str, last_attempt: int) -> int:
    """Forbid every attempt up to the given one; return the last that is refused from now on.

    A study without privacy ends: no ledger counts for it which models were opened.
    Raises: RecordLostError for a number below what the ledger shows.
    """
    traces, plan = read_traces(folder), bytes.fromhex(study)
    known = traces.ledger.last_attempt(study) if traces.ledger else 0
    sent = (traces.outbox or {}).get(study, Counter())[Kind.KEYS]
    _, begun, _ = traces.journal.get(study, (0, 0, 0))
    with closing(SiteJournal(folder.journal)) as journal:
        if max(last_attempt, journal.last_attempt(plan)) < known:
            raise RecordLostError(f"the ledger knows attempt {known} already: the study's last attempt is not lower")
        is_over = sent > begun and not is_private(folder, study, traces.audit)
        journal.tell(plan, max(0, sent - begun) + journal.told(plan))
        journal.skip_to(plan, NO_ATTEMPT_AFTER if is_over else last_attempt)
        return journal.last_attempt(plan)
