"""How people learn what sums that failed their check proved: journal (status, page), audit log of the federation."""

import logging

from server.federation.admission import audit
from server.federation.folder import FederationFolder
from server.study.folder import Study
from server.study.journal import Journal
from server.study.journal_rows import SuspicionRow

_log = logging.getLogger("fedward.rounds")


def tell_people(study: Study, journal: Journal, row: SuspicionRow) -> None:
    """Write a conclusion down before any cohort follows from it.

    The audit log is that of the federation in whose folder the study lies; a study alone has none.
    Raises: ChainBrokenError, OSError, sqlite3.Error.
    """
    journal.record_suspicion(row)
    _log.warning("attempt %d: %s", row.attempt, row.sentence)
    federation = FederationFolder(study.folder.path.resolve().parent.parent)
    if federation.config.exists():
        names = ", ".join(site for group in row.groups for site in group)
        audit(
            federation,
            "hospital left out" if len(row.groups) == 1 else "mutual suspicion",
            study=study.plan.study.name,
            sites=names,
            since_attempt=row.attempt + 1,
            until_attempt=row.until_attempt,
            why=row.sentence,
        )
