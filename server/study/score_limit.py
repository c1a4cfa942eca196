"""Which attempts may carry scores at all: beyond the plan's number of them, sites send noise in their place.

A site counts the scores that its ledger was charged for (``common.plan.guarantee.may_score``) and does not say when
they are used up. The server counts for each site the attempts that asked it for a score. That is never less than the
site counts: an attempt is numbered, durably, with its cohort, before its order leaves, and is charged once at most.
Whether an attempt that was given up had been charged is for the site alone to know, so here it counts. In doubt there
is no score.
"""

from collections import Counter
from collections.abc import Iterable

from common.plan.guarantee import may_score
from common.plan.plan import StudyPlan
from common.plan.schedule import is_closing, is_evaluated, version_before
from server.study.journal_rows import AttemptRow


def scored_attempts(plan: StudyPlan, attempts: Iterable[AttemptRow]) -> set[int]:
    """Return the numbers of the attempts whose counts are surely scores, if their sums were opened.

    ``attempts``: all of the study so far, in order. A plan without privacy charges nothing, so sites always score.
    """
    found, asked = set(), Counter[str]()
    for row in attempts:
        if not is_evaluated(plan, version_before(plan, row.phase, row.round_number)):
            continue
        closing = is_closing(plan, row.phase, row.round_number)
        if plan.privacy.delta is None or all(may_score(plan, asked[site], closing=closing) for site in row.cohort):
            found.add(row.attempt)
        asked.update(row.cohort)
    return found
