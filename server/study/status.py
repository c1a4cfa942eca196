"""Where a study stands, as plain values: read from plan and journal, also while the study runs."""

from collections import Counter
from typing import Any

from common.plan.attempts import most_orders
from common.plan.schedule import is_evaluated, total_rounds
from common.secagg.refusals import CHECK_OF_CODE
from server.errors import StudyFolderInvalidError
from server.study.charged import charged_by_phase, orders
from server.study.folder import Study
from server.study.history import AttemptRecord, attempt_records, scores_by_version
from server.study.journal import Journal, NotBegunError
from server.study.journal_rows import LOST


def read_journal(study: Study) -> Journal | None:
    """Open the journal for reading; None where the study was never started, or is being started at this moment.

    Raises: StudyFolderInvalidError if it belongs to another plan, or is damaged.
    """
    if not study.folder.journal.exists():
        return None
    try:
        return Journal(study.folder.journal, study.plan_digest, only_reads=True)
    except NotBegunError:
        return None


def study_status(study: Study, journal: Journal | None) -> dict[str, Any]:
    """Return the facts of a study so far: rounds, attempts, why attempts failed, scores, and who took part."""
    records = attempt_records(study, journal) if journal else []
    applied = [record for record in records if record.applied]
    last = records[-1] if records else None
    scores = scores_by_version(study, journal) if journal else {}
    planned = total_rounds(study.plan) + is_evaluated(study.plan, total_rounds(study.plan))
    return {
        "study": study.plan.study.name,
        "plan": study.plan.digest(),
        "state": _state(applied, last, finished=bool(applied and applied[-1].applied and applied[-1].applied.finished)),
        "started_unix_s": journal.started_unix_s() if journal else None,
        "last_unix_s": last.ordered.unix_s if last else None,
        "rounds_applied": len(applied),
        "rounds_planned": planned,
        "phase": study.plan.phases[last.ordered.phase].name if last else None,
        "round_number": last.ordered.round_number if last else None,
        "attempts": sum(charged_by_phase(study.plan, journal)) if journal else 0,
        "attempts_allowed": sum(phase.maximum_attempts for phase in study.plan.phases),
        "orders": orders(study.plan, journal) if journal else 0,
        "orders_allowed": most_orders(study.plan),
        "aborted": dict(Counter(reason(record.abort.code) for record in records if record.abort)),
        "suspicions": _suspicions(journal, last) if journal else [],
        "scores": {str(version): _score(score.document()) for version, score in scores.items()},
        "sites": {site.name: _site(site.name, records, journal) for site in study.plan.sites},
    }


def reason(code: int) -> str:
    """Return the name of an abort's code."""
    if code == LOST:
        return "server stopped"
    return str(CHECK_OF_CODE.get(code, code))


def require_started(journal: Journal | None, study: Study) -> Journal:
    """Return the journal. Raises: StudyFolderInvalidError where the study was never started."""
    if journal is None:
        raise StudyFolderInvalidError(f"{study.folder.path}: this study was never started")
    return journal


def _state(applied: list[AttemptRecord], last: AttemptRecord | None, *, finished: bool) -> str:
    """``unfinished`` covers a run that goes on now and one that was stopped: the journal cannot tell them apart."""
    if finished:
        return "finished"
    if last is None:
        return "not started"
    return "unfinished" if applied or last.outcome != "aborted" else "no round yet"


def _suspicions(journal: Journal, last: AttemptRecord | None) -> list[dict[str, Any]]:
    """Return who was left out of cohorts since when, until when and why; the newest last, and only that can hold."""
    unsound, rows = journal.unsound(), journal.suspicions()
    spoilt = max((attempt for attempt, _ in unsound), default=0)
    now = last.ordered.attempt if last else 0
    return [
        {
            "kind": str(row.kind),
            "sites": [list(group) for group in row.groups],
            "since_attempt": row.attempt + 1,
            "since_unix_s": row.unix_s,
            "until_attempt": row.until_attempt,
            "holds": row is rows[-1] and now + 1 < row.until_attempt and spoilt <= row.attempt,
            "why": row.sentence,
        }
        for row in rows
    ]


def _score(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out the tables: they are for curves."""
    return {name: value for name, value in document.items() if name != "tables"}


def _site(name: str, records: list[AttemptRecord], journal: Journal | None) -> dict[str, Any]:
    answers = [row for row in journal.answers() if row.site == name] if journal else []
    refusals = [row for row in journal.refusals() if row.site == name] if journal else []
    opened = [record for record in records if record.opened]
    return {
        "in_cohort": sum(name in record.ordered.cohort for record in records),
        "in_sum": sum(name in record.opened.participants for record in opened if record.opened),
        "dropped_out": sum(name in record.opened.dropped for record in opened if record.opened),
        "timeouts": sum(row.outcome == "timeout" for row in answers),
        "slow": sum(row.outcome == "slow" for row in answers),
        "refused": dict(Counter(reason(row.code) for row in refusals)),
        "bytes_from_site": sum(row.bytes_from_site for row in answers),
        "bytes_to_site": sum(row.bytes_to_site for row in answers),
    }
