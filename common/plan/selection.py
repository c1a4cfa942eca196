"""May noised scores choose the model, or end a phase early? Only where they mean something.

The standard error of a score is computed beforehand, from declared counts and the evaluation's own noise: with a dozen
held-out patients a site the noise decides, not the model, and the result is the last averaged model instead.
Source: privacy.md section 3 (the limit of 0.03).
"""

import math
from functools import cache
from typing import Final

from common.plan.errors import PlanInvalidError
from common.plan.guarantee import evaluation_noise_multiplier
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.schedule import count_layout
from common.privacy.metrics import UNITS_PER_PATIENT, CountKind, auc_standard_error

MOST_STANDARD_ERROR: Final = 0.03
HELD_OUT_SHARE: Final = 0.2  # of the labelled patients, see ``common.plan.privacy.Evaluation``
ASSUMED_AUC: Final = 0.8
DICE_SPREAD: Final = 0.3  # standard deviation of Dice between patients


def noise_stddev_of_counts(plan: StudyPlan, participants: int) -> float:
    """Return the standard deviation of the noise in one count summed over ``participants`` sites, in patients.

    Each site adds sigma norm / sqrt(h) (distributed; h guaranteed honest survivors) or sigma norm (local), norm being
    that of one patient's vector with its rounding; p sites add up to sqrt(p) of it.
    """
    layout = count_layout(plan)
    norm = layout.patient_norm + math.sqrt(layout.length) / 2 / UNITS_PER_PATIENT
    distributed = plan.privacy.noise is NoisePlacement.DISTRIBUTED
    honest = plan.secure_aggregation.honest_survivors if distributed else 1
    return _multiplier(plan.canonical()) * norm * math.sqrt(participants / honest)


def expected_standard_error(plan: StudyPlan) -> float:
    """Return the standard error of a score that the plan's evaluation will have with its full cohort.

    AUC: Hanley & McNeil at 0.8, two classes of equal size (rarer classes do worse). Dice: a spread of 0.3 between
    patients. The noise of the counts is in both. Infinite where nobody is held out.
    """
    patients = HELD_OUT_SHARE * sum(site.labelled_patients for site in plan.sites)
    if patients < 2 or not plan.evaluation.held_out:
        return math.inf
    layout, noise = count_layout(plan), noise_stddev_of_counts(plan, plan.round_size)
    if layout.kind is CountKind.SEGMENTATION:
        return math.sqrt(DICE_SPREAD**2 / patients + 2 * (noise / patients) ** 2)
    half = patients / 2
    return auc_standard_error(ASSUMED_AUC, positives=half, negatives=half, bins=layout.bins, noise_stddev=noise)


def check_selection(plan: StudyPlan, source: str) -> float:
    """Refuse a plan that lets scores decide anything although their standard error is above 0.03; return the error.

    Raises: PlanInvalidError with the setting, the error, the limit, and what to do.
    """
    error, rules = expected_standard_error(plan), plan.aggregation
    if rules.heeds_scores and error > MOST_STANDARD_ERROR:
        setting = "model_selection is best_noised"
        remedy = "use last_average"
        if rules.model_selection != "best_noised":
            setting, remedy = f"stop_after_scores is {rules.stop_after_scores}", "set 0 (run every round)"
        why = f"a score's standard error is {error:.3f} (noise included), at most {MOST_STANDARD_ERROR} is allowed"
        if not math.isfinite(error):
            why = "nobody is held out to be scored"
        raise PlanInvalidError(
            f"{source}: aggregation.{setting}, but {why}; {remedy}, or have more labelled patients held out "
            "(evaluation.held_out), or raise evaluation.epsilon or evaluation.every_rounds"
        )
    return error


def ends_early(plan: StudyPlan, scores_without_gain: int) -> bool:
    """Tell whether a phase ends now: so many scores in a row brought no gain. Public: scores are released values.

    Stopping costs nobody anything: the noise was computed for all attempts, and those not made are not charged.
    """
    patience = plan.aggregation.stop_after_scores
    return patience > 0 and scores_without_gain >= patience


@cache
def _multiplier(canonical: bytes) -> float:
    """Return the evaluation's noise multiplier; finding it takes a second, so once for each plan."""
    return evaluation_noise_multiplier(StudyPlan.model_validate_json(canonical, strict=False))
