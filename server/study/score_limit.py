"""Which attempts may carry scores at all: beyond the plan's number of them, sites send noise in their place.

A site counts the scores that its ledger was charged for (``common.plan.guarantee.may_score``) and does not say when
they are used up. The server counts for each site the attempts that asked it for a score. That is never less than the
site counts: an attempt is numbered, durably, with its cohort, before its order leaves, and is charged once at most.
Whether an attempt that was given up had been charged is for the site alone to know, so here it counts, but for a site
that was surely not: one that was not asked, or refused before it worked. In doubt there is no score.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from common.plan.guarantee import may_score
from common.plan.plan import StudyPlan
from common.plan.schedule import is_closing, is_evaluated, version_before
from common.secagg.check_table import Check
from common.secagg.stages import Kind
from server.study.journal import Journal
from server.study.journal_rows import LOST, AnswerRow, AttemptRow

_AFTER_WORK = {Check.R0_CONTRIBUTION, Check.R0_FRESH}  # refusals of an order that may leave its charge standing


def asked_attempts(journal: Journal) -> list[AttemptRow]:
    """Return the attempts in order, each with the sites of its cohort that may have been charged for it.

    Of those that were given up before anything was masked: who was asked (others first were, and refused) and did not
    refuse before it reserved. What the server did not live to note counts in full.
    """
    given_up = {row.attempt for row in journal.aborts() if row.code != LOST}
    given_up -= {row.attempt for row in journal.charged()}
    at_work: dict[int, set[str]] = {attempt: set() for attempt in given_up}
    for row in journal.answers(asked=Kind.ORDER.value) if given_up else ():
        if row.attempt in given_up and not _refused_before_work(row):
            at_work[row.attempt].add(row.site)
    return [
        replace(row, cohort=tuple(site for site in row.cohort if site in at_work.get(row.attempt, row.cohort)))
        for row in journal.attempts()
    ]


def _refused_before_work(row: AnswerRow) -> bool:
    check = row.outcome.removeprefix("refused:")
    return row.outcome != check and check.startswith("R0.") and check not in _AFTER_WORK


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
