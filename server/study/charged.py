"""How many of a plan's attempts are used up, and how often anybody was ordered: counted from the journal."""

from collections import Counter
from collections.abc import Iterable

from common.plan.plan import StudyPlan
from server.study.journal import Journal
from server.study.journal_rows import AttemptRow


def charged_by_phase(plan: StudyPlan, journal: Journal) -> list[int]:
    """Return how many charged attempts each phase had: no fewer than any hospital counts for itself.

    Where the plan draws groups, those of the hospital that was ordered most.
    """
    phases = range(len(plan.phases))
    if not plan.aggregation.takes_median:
        counts = journal.charged_in_phases()
        return [counts[phase] for phase in phases]
    rows = journal.charged()
    return [_most(row for row in rows if row.phase == phase) for phase in phases]


def orders(plan: StudyPlan, journal: Journal) -> int:
    """Return how many orders the study had, charged or not; with groups, those of the hospital with most."""
    return _most(journal.attempts()) if plan.aggregation.takes_median else journal.last_attempt()


def _most(rows: Iterable[AttemptRow]) -> int:
    return max(Counter(site for row in rows for site in row.cohort).values(), default=0)
