"""From a coordinator's question and declared counts to a whole plan, with every number that follows computed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.plan.plan import StudyPlan
from common.plan.privacy import Evaluation
from common.plan.schedule import total_rounds
from common.plan.selection import expected_standard_error
from server.drafting.building import build_plan
from server.drafting.draft import StudyDraft
from server.drafting.recipes import Counts, Question, Recipe, choose, draft_of

SOURCE: Final = "the drafted plan"
MOST_STANDARD_ERROR: Final = 0.05  # of a score: one that says less is not made
SCORE_BINS: Final = 8
MOST_ROUNDS_APART: Final = 1000  # ``Evaluation.every_rounds``


@dataclass(frozen=True)
class Planned:
    """A plan and how it came to be.

    ``standard_error``: of the one score on held-out patients; None where nobody is held out, because it would have been
    above ``MOST_STANDARD_ERROR``: then every label trains.
    """

    plan: StudyPlan
    recipe: Recipe
    standard_error: float | None


def plan_for(recipe: Recipe, question: Question, counts: Counts, study: Mapping[str, str]) -> Planned:
    """Return the plan of a recipe for sites with declared counts; ``study``: as in ``build_plan``.

    Raises: PlanInvalidError, and what building and checking a plan raises.
    """
    chosen = choose(recipe, question, counts)
    draft = draft_of(chosen, question, counts)
    plan = build_plan(draft, study, counts, card=question.card, source=SOURCE)
    scored = _with_one_score(plan, question)
    error = expected_standard_error(plan.model_copy(update={"evaluation": scored}))
    if not math.isfinite(error) or error > MOST_STANDARD_ERROR:
        return Planned(plan, chosen, None)
    return Planned(_built_with(draft, scored, question, counts, study), chosen, error)


def _with_one_score(plan: StudyPlan, question: Question) -> Evaluation:
    """Return an evaluation of the last model alone; its patients never train, so their whole budget is for it."""
    apart = min(MOST_ROUNDS_APART, total_rounds(plan))
    return Evaluation(every_rounds=apart, epsilon=question.epsilon, held_out=True, score_bins=SCORE_BINS)


def _built_with(
    draft: StudyDraft, scored: Evaluation, question: Question, counts: Counts, study: Mapping[str, str]
) -> StudyPlan:
    whole = draft.model_copy(update={"evaluation": scored})
    return build_plan(whole, study, counts, card=question.card, source=SOURCE)
