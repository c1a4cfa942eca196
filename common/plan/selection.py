"""May noised scores choose the model? Only where they mean something.

The standard error of a score is computed beforehand, from declared counts and the evaluation's own noise: with a dozen
held-out patients a site the noise decides, not the model, and the result is the last averaged model instead.
Source: privacy.md section 3 (the limit of 0.03).
"""

import math
from functools import cache
from typing import Final

from common.errors import PlanInvalidError
from common.metrics import UNITS_PER_PATIENT, CountKind, auc_standard_error
from common.plan.guarantee import evaluation_noise_multiplier
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.schedule import count_layout

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
    layout, noise = count_layout(plan), noise_stddev_of_counts(plan, plan.secure_aggregation.cohort_size)
    if layout.kind is CountKind.SEGMENTATION:
        return math.sqrt(DICE_SPREAD**2 / patients + 2 * (noise / patients) ** 2)
    half = patients / 2
    return auc_standard_error(ASSUMED_AUC, positives=half, negatives=half, bins=layout.bins, noise_stddev=noise)


def check_selection(plan: StudyPlan, source: str) -> float:
    """Refuse a plan that lets scores choose the model although their standard error is above 0.03; return the error.

    Raises: PlanInvalidError with the error, the limit, and what to do.
    """
    error = expected_standard_error(plan)
    if plan.aggregation.model_selection == "best_noised" and error > MOST_STANDARD_ERROR:
        raise PlanInvalidError(
            f"{source}: aggregation.model_selection is best_noised, but a score's standard error is {error:.3f} "
            f"(noise included), at most {MOST_STANDARD_ERROR} is allowed; use last_average, or raise "
            "evaluation.epsilon or evaluation.every_rounds"
        )
    return error


@cache
def _multiplier(canonical: bytes) -> float:
    """Return the evaluation's noise multiplier; finding it takes a second, so once for each plan."""
    return evaluation_noise_multiplier(StudyPlan.model_validate_json(canonical, strict=False))
