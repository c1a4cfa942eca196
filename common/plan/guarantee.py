"""What the plan's noise really buys: recomputed from the plan by everybody, believed from nobody.

Patients fall into three disjoint strata (labelled, unlabelled, validation), so their costs do not add up; the guarantee
is the largest of the three. Within a stratum every phase composes. Attempts are counted, not rounds, because an aborted
attempt may have released its sum before it was aborted.
"""

import math
from dataclasses import dataclass

from common.plan.errors import PlanInvalidError, PlanWeakPrivacyError
from common.plan.phases import Method, Phase
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.schedule import count_layout, learning_attempts
from common.plan.shape import longest_sum
from common.privacy.accounting import LEAST_DELTA, SampledGaussian, epsilon_under, noise_multiplier_for
from common.privacy.errors import AccountingError
from common.privacy.noise_placement import (
    NoiseShares,
    ObserverEpsilon,
    epsilon_with_honest,
    observer_epsilon,
    worst_of,
)
from common.privacy.noise_tails import WHOLE, Shares, tails_delta


@dataclass(frozen=True)
class Guarantee:
    """Epsilon of each stratum at the plan's delta; ``epsilon`` is what the study can promise: the largest."""

    delta: float
    labelled: float
    unlabelled: float
    validation: float

    @property
    def epsilon(self) -> float:
        """Return the epsilon of the worst stratum."""
        return max(self.labelled, self.unlabelled, self.validation)


def labelled_events(plan: StudyPlan) -> list[SampledGaussian]:
    """Return what a labelled patient goes through: z = sigma (noise stddev sigma * C over clipping norm C)."""
    return [
        SampledGaussian(phase.labelled_sampling_rate, phase.noise_multiplier, _steps(plan, index))
        for index, phase in enumerate(plan.phases)
        if phase.labelled_sampling_rate > 0
    ]


def unlabelled_events(plan: StudyPlan) -> list[SampledGaussian]:
    """Return what an unlabelled patient goes through: z = sigma * C / C_U, because C_U = unlabelled_clip_ratio * C."""
    return [
        SampledGaussian(
            phase.unlabelled_sampling_rate, phase.noise_multiplier / phase.unlabelled_clip_ratio, _steps(plan, index)
        )
        for index, phase in enumerate(plan.phases)
        if phase.unlabelled_sampling_rate > 0
    ]


def evaluations(plan: StudyPlan) -> int:
    """Return how many noised evaluations the study makes at most: one every so many attempts, and the closing one."""
    return math.ceil(sum(phase.maximum_attempts for phase in plan.phases) / plan.evaluation.every_rounds) + 1


def may_score(plan: StudyPlan, scores_before: int, *, closing: bool) -> bool:
    """Tell whether one score more stays within ``evaluation.epsilon`` after so many that were charged.

    The noise is sized for ``evaluations(plan)`` scores. The last of them is kept for the closing round, so that retries
    of earlier rounds cannot take the final model's score. Beyond, a site sends noise without reading a patient.
    """
    return scores_before < evaluations(plan) - (0 if closing else 1)


def evaluation_noise_multiplier(plan: StudyPlan) -> float:
    """Return the noise of one evaluation, relative to the norm of one patient's counts, so that all cost the budget.

    0 when the plan has no privacy. Every validation patient is in every evaluation: sampling rate 1. The tails that
    drawn noise lacks are in the budget (more noise has smaller ones, so those of the first guess are enough).
    """
    delta = plan.privacy.delta
    if delta is None:
        return 0.0

    def needed(left: float) -> float:
        return noise_multiplier_for(epsilon=plan.evaluation.epsilon, delta=left, sampling_rate=1.0, steps=releases)

    releases, counts = evaluations(plan), count_layout(plan).length
    guess = SampledGaussian(1.0, needed(delta), releases)
    return needed(delta - tails_delta([guess], coordinates=counts, shares=_standing(plan)))


def accounted_delta(plan: StudyPlan) -> float | None:
    """Return the delta at which the noise of training is accounted; None when the plan promises nothing.

    It is the plan's delta without what the tails cost that drawn noise lacks (``common.privacy.noise_tails``).
    Raises: PlanWeakPrivacyError where that leaves nothing; NetworkUnsuitableError.
    """
    delta = plan.privacy.delta
    if delta is None:
        return None
    strata, most = (labelled_events(plan), unlabelled_events(plan)), longest_sum(plan)
    lacking = max(tails_delta(events, coordinates=most, shares=_standing(plan)) for events in strata)
    if delta - lacking < LEAST_DELTA:
        raise PlanWeakPrivacyError(
            f"privacy.delta is {delta:g}, but that drawn noise never exceeds 8.57 standard deviations costs "
            f"{lacking:.3g} already ({most} parameters); train fewer parameters, plan fewer attempts, or raise delta"
        )
    return delta - lacking


def guarantee(plan: StudyPlan) -> Guarantee | None:
    """Return what the plan buys, or None when it promises nothing (noise = none).

    Accountant: ``common.privacy.accounting``, zero-out relation, against the coordinator together with up to
    ``assumed_colluders`` sites (distributed) or against everybody (local).
    Raises: PlanInvalidError for noise below what can be accounted; PlanWeakPrivacyError, NetworkUnsuitableError.
    """
    delta, promise = plan.privacy.delta, plan.privacy.epsilon
    if delta is None or promise is None:
        return None
    try:
        left = accounted_delta(plan) or delta
        return Guarantee(
            delta=delta,
            labelled=epsilon_under(labelled_events(plan), left, ceiling=promise),
            unlabelled=epsilon_under(unlabelled_events(plan), left, ceiling=promise),
            validation=plan.evaluation.epsilon if plan.evaluation.held_out else 0.0,
        )
    except AccountingError as error:
        raise PlanInvalidError(f"the plan's noise cannot be accounted: {error}") from None


def seen_by(plan: StudyPlan) -> ObserverEpsilon | None:
    """Return the epsilon of the worst stratum towards each kind of observer; None when the plan promises nothing.

    Held-out patients are a stratum too. A participating hospital can subtract its own noise, so with distributed noise
    it sees more than an outsider. Raises: as ``guarantee``.
    """
    delta = plan.privacy.delta
    if delta is None:
        return None
    shares = _noise_shares(plan)
    try:
        return worst_of([observer_epsilon(each, delta, shares, coordinates=most) for each, most in _strata(plan)])
    except AccountingError as error:
        raise PlanInvalidError(f"the plan's noise cannot be accounted: {error}") from None


def epsilon_if_real(plan: StudyPlan, real: int) -> float | None:
    """Return the epsilon of the worst stratum when ``real`` hospitals of the plan are real and all others are not.

    ``real`` counts the patients' own hospital; 1: every other hospital belongs to the coordinator. Of the real ones the
    assumed colluders still help it, the patients' own does not. Never below the guarantee; None for a plan that
    promises nothing; infinite where (nearly) no noise would be left.
    """
    delta = plan.privacy.delta
    if delta is None:
        return None
    rules, shares = plan.secure_aggregation, _noise_shares(plan)
    honest = max(1, min(real, rules.minimum_survivors) - rules.assumed_colluders)
    return max(
        epsilon_with_honest(events, delta, shares, honest=honest, coordinates=most) for events, most in _strata(plan)
    )


def check_guarantee(plan: StudyPlan, source: str) -> Guarantee | None:
    """Refuse a plan that promises more than its noise buys; return what it buys.

    Raises: PlanWeakPrivacyError with the epsilon bought, the promise, and a noise multiplier that would do;
    PlanInvalidError.
    """
    bought = guarantee(plan)
    promise = plan.privacy.epsilon
    if bought is None or promise is None or bought.epsilon <= promise:
        return bought
    if bought.validation > promise:
        advice = f"lower evaluation.epsilon to at most {promise:g}"
    elif len(plan.phases) == 1:
        advice = f"set noise_multiplier to at least {_needed(plan, plan.phases[0]):.4f}"
    else:
        advice = "raise noise_multiplier, or lower sampling rates or maximum_attempts"
    raise PlanWeakPrivacyError(
        f"{source}: privacy.epsilon promises {promise:g}, but the settings buy only {bought.epsilon:.3f} "
        f"(labelled {bought.labelled:.3f}, unlabelled {bought.unlabelled:.3f}, validation {bought.validation:.3f} "
        f"at delta {bought.delta:g}); {advice}"
    )


def noise_to_signal(plan: StudyPlan, phase: Phase, num_parameters: int) -> float:
    """Return the norm of the noise on the mean gradient over the most a perfect agreement of patients could give.

    sigma * sqrt(d) / expected batch (private-training.md section 3.4). Above about 1 the network is too large for the
    patients there are; steps average some of it away. With local noise, sqrt(h) times more for h equal sites. Of
    ``ridge``: of the products with labels, which are as many as the head's parameters, over labelled patients.
    """
    sites = len(plan.sites) if plan.privacy.noise is NoisePlacement.LOCAL else 1
    batch = plan.expected_batch(phase)
    if phase.method is Method.RIDGE:
        batch = phase.labelled_sampling_rate * sum(site.labelled_patients for site in plan.sites)
    return phase.noise_multiplier * math.sqrt(num_parameters * sites) / batch


def _strata(plan: StudyPlan) -> list[tuple[list[SampledGaussian], int]]:
    """Return what each stratum goes through, and how many numbers one release has."""
    most = longest_sum(plan)
    strata = [(events, most) for events in (labelled_events(plan), unlabelled_events(plan)) if events]
    if plan.evaluation.held_out:
        scores = SampledGaussian(1.0, evaluation_noise_multiplier(plan), evaluations(plan))
        strata.append(([scores], count_layout(plan).length))
    return strata


def _noise_shares(plan: StudyPlan) -> NoiseShares | None:
    """Return the sites' shares of the noise; None where each site adds all of it."""
    if plan.privacy.noise is not NoisePlacement.DISTRIBUTED:
        return None
    rules = plan.secure_aggregation
    return NoiseShares(rules.minimum_survivors, rules.assumed_colluders)


def _standing(plan: StudyPlan) -> Shares:
    """Return the shares of noise that the guarantee counts on."""
    if plan.privacy.noise is not NoisePlacement.DISTRIBUTED:
        return WHOLE
    honest = plan.secure_aggregation.honest_survivors
    return Shares(honest, honest)


def _steps(plan: StudyPlan, index: int) -> int:
    return learning_attempts(plan, index) * plan.phases[index].local_steps


def _needed(plan: StudyPlan, phase: Phase) -> float:
    """Noise multiplier with which a plan of one phase keeps its promise in both strata."""
    assert plan.privacy.epsilon is not None and plan.privacy.delta is not None  # noqa: S101, PT018 (for the types)
    needed, delta = 0.0, accounted_delta(plan) or plan.privacy.delta
    for rate, ratio in (
        (phase.labelled_sampling_rate, 1.0),
        (phase.unlabelled_sampling_rate, phase.unlabelled_clip_ratio),
    ):
        if rate > 0:
            multiplier = noise_multiplier_for(
                epsilon=plan.privacy.epsilon, delta=delta, sampling_rate=rate, steps=_steps(plan, 0)
            )
            needed = max(needed, multiplier * ratio)
    return needed
