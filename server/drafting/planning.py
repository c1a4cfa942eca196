"""From a coordinator's question and declared counts to a whole plan, with every number that follows computed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.plan.errors import PlanWeakPrivacyError
from common.plan.plan import StudyPlan
from common.plan.privacy import Evaluation
from common.plan.schedule import total_rounds
from common.plan.selection import expected_standard_error
from common.plan.task import TaskKind
from server.drafting.building import build_plan
from server.drafting.draft import StudyDraft
from server.drafting.recipes import Counts, Question, Recipe, choose, draft_of

SOURCE: Final = "the drafted plan"
MOST_STANDARD_ERROR: Final = 0.05  # of a score: one that says less is not made
SCORE_BINS: Final = 8
LEAST_SAMPLED: Final = 300  # expected in a sum of all hospitals, where fewer than all take part
REMEDY: Final = {
    Recipe.RIDGE: "here that means --recipe head, or a larger --epsilon",
    Recipe.HEAD: "here that means a larger --epsilon, or --recipe plain and a plan by hand",
    Recipe.PRIOR_HEAD: "here that means a smaller --size, a smaller (true) --mask-share, or a larger --epsilon",
}
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
    try:
        draft, plan = _that_fits(chosen, question, counts, study)
    except PlanWeakPrivacyError:
        if recipe is not Recipe.AUTO or chosen is not Recipe.RIDGE:
            raise
        chosen = Recipe.HEAD  # moments of very many labelled patients have no room in a masked word; gradients have
        draft, plan = _that_fits(chosen, question, counts, study)
    scored = _with_one_score(plan, question)
    error = expected_standard_error(plan.model_copy(update={"evaluation": scored}))
    if not math.isfinite(error) or error > MOST_STANDARD_ERROR:
        return Planned(plan, chosen, None)
    whole = draft.model_copy(update={"evaluation": scored})
    return Planned(build_plan(whole, study, counts, card=question.card, source=SOURCE), chosen, error)


def _that_fits(
    recipe: Recipe, question: Question, counts: Counts, study: Mapping[str, str]
) -> tuple[StudyDraft, StudyPlan]:
    """Return draft and plan with as many patients in sums of moments and label maps as masked words have room for.

    Half as many, and half again: thousands teach all that those can. Raises: as ``build_plan``.
    """
    labelled, unlabelled = (sum(each) for each in zip(*counts.values(), strict=True))
    patients = unlabelled if unlabelled and recipe is not Recipe.PRIOR_HEAD else labelled
    rate = 1.0
    while True:
        draft = draft_of(recipe, question, counts, rate=rate)
        try:
            return draft, build_plan(draft, study, counts, card=question.card, source=SOURCE)
        except PlanWeakPrivacyError as error:
            rate /= 2
            if rate * patients < LEAST_SAMPLED:
                raise PlanWeakPrivacyError(f"{error}; {REMEDY[recipe]}") from None


def _with_one_score(plan: StudyPlan, question: Question) -> Evaluation:
    """Return an evaluation of the last model alone; its patients never train, so their whole budget is for it."""
    apart = min(MOST_ROUNDS_APART, total_rounds(plan))
    bins = {} if question.kind is TaskKind.SEGMENTATION else {"score_bins": SCORE_BINS}
    return Evaluation(every_rounds=apart, epsilon=question.epsilon, held_out=True, **bins)
