"""The rules between numbers that keep a single update, and a single patient, hidden. One function, numbered rules."""

from common.plan.errors import PlanWeakPrivacyError, PlanWeakThresholdError
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement


def check_thresholds(plan: StudyPlan, source: str) -> None:
    """Refuse a plan whose thresholds would let somebody read one site's update, or whose delta hides nobody.

    (1) 2t > n + c: no two sets of t shares with fewer than c + 1 honest sites in common, so nobody gets both kinds.
    (2) t <= n: otherwise no round ever ends.
    (3) s_min >= max(3, c + 2): at least two honest updates in every sum.
    (4) s_min <= n.
    (5) delta < 1 / patients: otherwise publishing one patient's record would satisfy the promise.
    (6) 32-bit words with distributed noise: coarser words would break the noise's shape (privacy.md section 2).

    Raises: PlanWeakThresholdError, PlanWeakPrivacyError. Source: secure-aggregation.md section 6; Bonawitz et al. 2017.
    """
    rules = plan.secure_aggregation
    n, t, s_min, c = rules.cohort_size, rules.threshold, rules.minimum_survivors, rules.assumed_colluders
    where = f"{source}: secure_aggregation"
    least_t = (n + c) // 2 + 1
    if 2 * t <= n + c:
        raise PlanWeakThresholdError(
            f"{where}.threshold is {t}, it must be at least {least_t} "
            f"(2t > n + c with cohort_size {n} and assumed_colluders {c})"
        )
    if t > n:
        raise PlanWeakThresholdError(f"{where}.threshold is {t}, it cannot exceed cohort_size ({n})")
    if s_min < max(3, c + 2):
        raise PlanWeakThresholdError(
            f"{where}.minimum_survivors is {s_min}, it must be at least {max(3, c + 2)} (3, and colluders + 2)"
        )
    if s_min > n:
        raise PlanWeakThresholdError(f"{where}.minimum_survivors is {s_min}, it cannot exceed cohort_size ({n})")
    _check_delta(plan, source)
    if plan.privacy.noise is NoisePlacement.DISTRIBUTED and rules.word_bits != 32:
        raise PlanWeakPrivacyError(
            f"{where}.word_bits is {rules.word_bits}, distributed noise needs 32; set 32, or privacy.noise = local"
        )


def _check_delta(plan: StudyPlan, source: str) -> None:
    delta, patients = plan.privacy.delta, plan.declared_patients
    if delta is not None and delta >= 1 / patients:
        raise PlanWeakPrivacyError(
            f"{source}: privacy.delta is {delta:g}, it must be below 1/patients = {1 / patients:.3g} "
            f"({patients} declared patients); {patients**-1.1:.1g} is a good value"
        )
