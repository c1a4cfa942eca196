"""The numbers of a plan that follow from others: layouts, noise, reply slot, norms of a ridge, range of a sum."""

from collections.abc import Sequence

from common.plan.errors import PlanWeakPrivacyError
from common.plan.fitting import check_fit, derived_norm, derived_range, says_range
from common.plan.guarantee import accounted_delta, check_guarantee, labelled_events, unlabelled_events
from common.plan.phases import Method
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.reply_slot import check_reply_slot, default_reply_slot_s
from common.plan.selection import check_selection
from common.plan.settings_read import check_settings_are_read
from common.plan.shape import phase_layouts
from common.privacy.accounting import COARSE_INTERVAL, LEAST_NOISE_MULTIPLIER, SampledGaussian, epsilon
from server.drafting.draft import NOT_SET, DraftPhase

Drafts = Sequence[DraftPhase]

MOST_NOISE = 2000.0
NOISE_PRECISION = 2e-4  # relative; the noise found is rounded up


def completed(plan: StudyPlan, drafts: Drafts, source: str) -> StudyPlan:
    """Fill in what ``drafts``, one for each phase, leave open, and check the whole. Raises: what the checks raise."""
    plan = _with_range(_with_norms(drafts, _with_reply_slot(_with_noise(drafts, _with_layouts(plan), source))))
    check_settings_are_read(plan, source)
    check_reply_slot(plan, source)
    check_guarantee(plan, source)
    if plan.aggregation.heeds_scores:
        check_selection(plan, source)
    check_fit(plan, phase_layouts(plan), source)
    return plan


def _with_layouts(plan: StudyPlan) -> StudyPlan:
    """Fill in the layout hashes that the draft left out."""
    phases = tuple(
        phase.model_copy(update={"layout_hash": layout.layout_hash}) if phase.layout_hash == NOT_SET else phase
        for phase, layout in zip(plan.phases, phase_layouts(plan), strict=True)
    )
    return plan.model_copy(update={"phases": phases})


def _with_noise(drafts: Drafts, plan: StudyPlan, source: str) -> StudyPlan:
    """Compute the noise of the phases that do not name it: one factor for all, found by bisection."""
    open_phases = [index for index, draft in enumerate(drafts) if "noise_multiplier" not in draft.model_fields_set]
    if plan.privacy.epsilon is None or not open_phases:
        return plan

    def with_factor(factor: float) -> StudyPlan:
        phases = [
            phase.model_copy(update={"noise_multiplier": round(factor * drafts[index].noise_ratio, 4)})
            if index in open_phases
            else phase
            for index, phase in enumerate(plan.phases)
        ]
        return plan.model_copy(update={"phases": tuple(phases)})

    low, high = 0.2, 1.0
    while not _keeps_promise(with_factor(high)):
        low, high = high, 2 * high
        if high > MOST_NOISE:
            raise PlanWeakPrivacyError(f"{source}: no noise buys epsilon {plan.privacy.epsilon:g}; sample less often")
    while high - low > NOISE_PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _keeps_promise(with_factor(middle)) else (middle, high)
    return with_factor(high * (1 + NOISE_PRECISION))


def _with_norms(drafts: Drafts, plan: StudyPlan) -> StudyPlan:
    """Derive the norm of a ridge phase's vectors where the draft does not name it."""
    if plan.privacy.noise is NoisePlacement.NONE:
        return plan
    phases = [
        phase.model_copy(update={"clipping_norm": derived_norm(plan, phase)})
        if phase.method is Method.RIDGE and "clipping_norm" not in drafted.model_fields_set
        else phase
        for phase, drafted in zip(plan.phases, drafts, strict=True)
    ]
    return plan.model_copy(update={"phases": tuple(phases)})


def _with_range(plan: StudyPlan) -> StudyPlan:
    """Derive the range of a hospital's sum where the draft does not name it."""
    if says_range(plan):
        return plan
    rules = plan.secure_aggregation.model_copy(update={"coordinate_range": derived_range(plan)})
    return plan.model_copy(update={"secure_aggregation": rules})


def _with_reply_slot(plan: StudyPlan) -> StudyPlan:
    """Fill in the reply slot of a private plan whose draft has none; simulated hospitals do not wait for its end."""
    if plan.privacy.noise is NoisePlacement.NONE or plan.timing.reply_slot_s > 0:
        return plan
    slot_s, timing = default_reply_slot_s(plan), plan.timing
    changed = {"reply_slot_s": slot_s, "training_timeout_s": max(timing.training_timeout_s, 2 * slot_s)}
    return plan.model_copy(update={"timing": timing.model_copy(update=changed)})


def _keeps_promise(plan: StudyPlan) -> bool:
    """Whether both strata stay within the promise, by the fast upper bound."""
    privacy = plan.privacy
    if privacy.epsilon is None or privacy.delta is None:
        return True
    try:
        delta = accounted_delta(plan) or privacy.delta
    except PlanWeakPrivacyError:
        return False
    strata: list[list[SampledGaussian]] = [labelled_events(plan), unlabelled_events(plan)]
    if any(event.noise_multiplier < LEAST_NOISE_MULTIPLIER for events in strata for event in events):
        return False
    return all(epsilon(events, delta, interval=COARSE_INTERVAL) <= privacy.epsilon for events in strata)
