"""Do the books agree after a study: journal, sums, checkpoint and every hospital's ledger?"""

from collections import Counter

from client.installation.folder import SiteFolder
from client.ledger.budget import EntryKind
from client.ledger.ledger import Ledger
from server.model.checkpoint import same_state
from server.study.folder import Study, open_study
from server.study.history import AttemptRecord, attempt_records
from server.study.progress import current_state, replay
from server.study.status import read_journal, require_started
from simulation.errors import RehearsalError
from simulation.rehearsal.cast import Cast


def check_books(cast: Cast) -> dict[str, int]:
    """Check that no round counts twice, that the sums give the model, and that no ledger misses an event.

    Returns how many attempts, rounds and ledger events were compared. Raises: RehearsalError with what does not agree.
    """
    study = open_study(cast.study)
    journal = require_started(read_journal(study), study)
    try:
        records = attempt_records(study, journal)
        same = same_state(replay(study, journal), current_state(study, journal))
    finally:
        journal.close()
    _demand(same, "the sums, added again from the public start, do not give the model")
    applied = Counter((record.ordered.phase, record.ordered.round_number) for record in records if record.applied)
    _demand(max(applied.values(), default=0) == 1, "a round was applied twice")
    numbers = [record.ordered.attempt for record in records]
    _demand(numbers == sorted(set(numbers)), "an attempt's number was used twice")
    events = sum(_compare_ledger(cast, name, study, records) for name in cast.sites)
    return {"attempts": len(records), "rounds": len(applied), "ledger_events": events}


def _compare_ledger(cast: Cast, name: str, study: Study, records: list[AttemptRecord]) -> int:
    """Demand that a site has spent every attempt whose sum it is in; return how many that are."""
    with Ledger.open(SiteFolder(cast.site(name)).ledger, ceiling=0.0) as ledger:
        spending = [row for row in ledger.spending() if row.study == study.plan.digest()]
    kinds = spending[0].attempts if spending else {}
    summed = [row.opened.attempt for row in records if row.opened and name in row.opened.participants]
    missing = [attempt for attempt in summed if kinds.get(attempt) is not EntryKind.SPENT]
    _demand(not missing, f"{name}: attempts {missing} are in a sum and not spent in its ledger")
    return len(summed)


def _demand(holds: bool, complaint: str) -> None:
    if not holds:
        raise RehearsalError(f"the books do not agree: {complaint}")
