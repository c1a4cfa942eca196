"""Studies that ended at this site for good: the ledger charged all of them, or the journal forbids every attempt."""

from contextlib import suppress
from typing import Final

from client.consent.continuity.errors import StudyEndedError
from client.consent.continuity.traces import journal_traces, ledger_traces
from client.installation.folder import SiteFolder
from client.ledger.errors import LedgerInvalidError

NO_ATTEMPT_AFTER: Final = (1 << 53) - 1


def ended_studies(folder: SiteFolder) -> set[str]:
    """Return the digests of plans that no order can start any more here, since a file began again.

    Raises: JournalDamagedError, LedgerBusyError.
    """
    ended = {study for study, (last, _, _) in journal_traces(folder).items() if last >= NO_ATTEMPT_AFTER}
    with suppress(LedgerInvalidError):  # said elsewhere, in its own sentence
        ended |= ledger_traces(folder).whole
    return ended


def require_not_ended(folder: SiteFolder, study: str) -> None:
    """Raise StudyEndedError where a study ended here: approving its plan again would change nothing."""
    if study in ended_studies(folder):
        raise StudyEndedError(
            f"study {study[:12]}… ended at this site when a lost file began again: what it promised counts as spent, "
            "and no order of it is taken. Ask the coordinator for a new study; `fedward-site audit` shows who decided, "
            "and why"
        )
