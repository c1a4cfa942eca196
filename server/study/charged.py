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
    rows = journal.charged()
    return [_count(plan, (row for row in rows if row.phase == phase)) for phase in range(len(plan.phases))]


def orders(plan: StudyPlan, journal: Journal) -> int:
    """Return how many orders the study had, charged or not; with groups, those of the hospital with most."""
    return _count(plan, journal.attempts())


def _count(plan: StudyPlan, rows: Iterable[AttemptRow]) -> int:
    if not plan.aggregation.takes_median:
        return sum(1 for _ in rows)
    return max(Counter(site for row in rows for site in row.cohort).values(), default=0)
