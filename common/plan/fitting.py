"""Does each phase's layout fit the network, are the masked words fine enough for its noise, and have they room?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.networks.ridge import INTERCEPT
from common.plan.errors import PlanInvalidError, PlanWeakPrivacyError
from common.plan.phases import Method, Phase
from common.plan.plan import Site, StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.protocol import vector_spec
from common.plan.schedule import count_layout
from common.plan.shape import PhaseLayout, plan_parameters
from common.secagg.errors import VectorRefusedError

LEAST_STEPS_PER_NOISE = 1024  # privacy.md section 2: the noise share of a site covers at least so many lattice steps
LARGEST_NOISE = 8.6  # standard deviations: no draw is larger (privacy.md section 2)
USUAL_RANGE = 64.0
SUMS_OF_MOMENTS = frozenset({Method.STANDARDISE, Method.RIDGE, Method.PRIOR})  # of many patients, they point one way
MOST_ROUNDING = 0.01  # of the clipping norm: how much rounding to the lattice may add to one patient's contribution


@dataclass(frozen=True)
class PhaseFit:
    """What a phase trains and sends: parameters, digest of their layout, numbers of a sum, step of one coordinate."""

    name: str
    num_parameters: int
    sum_length: int
    layout_hash: str
    lattice_step: float


def lattice_step(plan: StudyPlan) -> float:
    """Return the value of one unit of a masked word: the step of the protocol's own lattice (``common.secagg``).

    Noise is drawn on it and sums are read from it. Raises: VectorRefusedError for words without room.
    """
    return vector_spec(plan, body_length=1, meta_words=0).lattice.step


def lattice_limit(plan: StudyPlan) -> int:
    """Return the largest integer that a masked word takes. Raises: as ``lattice_step``."""
    return vector_spec(plan, body_length=1, meta_words=0).lattice.limit


def least_range(*, noise_multiplier: float, clipping_norm: float, honest_survivors: int) -> float:
    """Return the least ``coordinate_range`` that holds a hospital's noise (distributed) and one patient beside it.

    Then a site cuts only its clean sum (``client.learning.training``); the noise is taken as much larger as rounding
    may make it.
    """
    share = noise_multiplier * clipping_norm / math.sqrt(honest_survivors)
    return LARGEST_NOISE * (1 + MOST_ROUNDING) * share + clipping_norm


def derived_range(plan: StudyPlan) -> float:
    """Return the ``coordinate_range`` that a plan needs, in halves: for a hospital's noise and its patients beside it.

    The patients: as many as the largest hospital samples, and six standard deviations more, all pointing one way; of
    moments (``standardise``), which do point one way, all that it has, and of second moments (``ridge``) the share that
    falls to one coordinate. No more than 64 but for those and for what the
    noise alone needs: a coarser lattice would round away what a large hospital gains. Differences of weights (local
    noise) have no such figure: 64.
    """
    if plan.privacy.noise is NoisePlacement.LOCAL:
        return USUAL_RANGE
    return max(_range_of(plan, phase) for phase in plan.phases)


def derived_norm(plan: StudyPlan, phase: Phase) -> float:
    """Return the ``clipping_norm`` of a ridge phase with which its sums use the words that other phases ask for.

    Its vectors have that norm by construction, so it decides nothing but how finely they are rounded. A power of two.
    """
    others = [_range_of(plan, other) for other in plan.phases if other.method is not Method.RIDGE]
    own = _range_of(plan, phase.model_copy(update={"clipping_norm": 1.0}))
    return 2.0 ** max(0, math.floor(math.log2(min(1000.0, max(others, default=own) / own))))


def largest_sum(plan: StudyPlan, phase: Phase) -> float:
    """Return what the patients of the largest hospital can add up to in one coordinate, all that may be sampled.

    That is all of them at a rate of 1, and below it six standard deviations more than the expected number.
    Gradients of many patients point in many directions and never come near it; sums of moments point in one and do.
    """
    labelled, unlabelled = (norm * share for norm, share in zip(_norms(phase), _shares(plan, phase), strict=True))
    rates = phase.labelled_sampling_rate, phase.unlabelled_sampling_rate
    return max(
        labelled * _most_sampled(site.labelled_patients, rates[0])
        + unlabelled * _most_sampled(site.unlabelled_patients, rates[1])
        for site in plan.sites
    )


def _most_sampled(patients: int, rate: float) -> float:
    return min(float(patients), rate * patients + 6 * math.sqrt(rate * (1 - rate) * patients))


def _range_of(plan: StudyPlan, phase: Phase) -> float:
    rates = (phase.labelled_sampling_rate, phase.unlabelled_sampling_rate)
    least = least_range(
        noise_multiplier=phase.noise_multiplier,
        clipping_norm=phase.clipping_norm,
        honest_survivors=plan.secure_aggregation.honest_survivors,
    )

    def reach(site: Site) -> float:
        counts = (site.labelled_patients, site.unlabelled_patients)
        means = [rate * count for rate, count in zip(rates, counts, strict=True)]
        return sum(norm * (mean + 6 * math.sqrt(mean)) for norm, mean in zip(_norms(phase), means, strict=True))

    if phase.method in SUMS_OF_MOMENTS:
        return math.ceil(2 * (least + largest_sum(plan, phase))) / 2
    derived = math.ceil(2 * (least + max(map(reach, plan.sites)))) / 2
    return min(derived, max(USUAL_RANGE, 2.0 ** math.ceil(math.log2(least))))


def _norms(phase: Phase) -> tuple[float, float]:
    """Return the clipping norms of labelled and unlabelled patients."""
    return phase.clipping_norm, phase.clipping_norm * phase.unlabelled_clip_ratio


def _shares(plan: StudyPlan, phase: Phase) -> tuple[float, float]:
    """Return the share of a patient's norm in the mean sum's largest coordinate, at most: labelled, unlabelled.

    Products with labels lie below 1 / sqrt(F) of a patient's norm and second moments of standardised features near
    1 / F: twice and four times as much is allowed for, or what the intercept has. Otherwise: all.
    """
    if phase.method is Method.PRIOR:  # a voxel of a label map is 0 or 1, whatever the norm of the whole
        return min(1.0, 1 / phase.clipping_norm), 1.0
    if phase.method is not Method.RIDGE or not _is_standardised(plan, phase):
        return 1.0, 1.0
    (features,) = dict(plan_parameters(plan))["feature_norm.weight"]
    return min(1.0, max(INTERCEPT, 2 / math.sqrt(features))), min(1.0, max(INTERCEPT**2, 4 / features))


def _is_standardised(plan: StudyPlan, phase: Phase) -> bool:
    earlier = [each.name for each in plan.phases].index(phase.name)  # by name: a phase may be tried with other numbers
    return any(each.method is Method.STANDARDISE for each in plan.phases[:earlier])


def says_range(plan: StudyPlan) -> bool:
    """Tell whether a plan's file names ``coordinate_range``; where it does not, the form's 64 stands in its digest."""
    return "coordinate_range" in plan.secure_aggregation.model_fields_set


def require_range(plan: StudyPlan, source: str) -> None:
    """Refuse to sign a plan whose range nobody chose. Plans that were signed so before stay what they are.

    Raises: PlanInvalidError with the derived range.
    """
    if not says_range(plan):
        raise PlanInvalidError(
            f"{source}: secure_aggregation.coordinate_range is missing; this plan's noise and patients need "
            f"{derived_range(plan):g}: add it. A larger one lets one hospital move a coordinate further"
        )


def check_fit(plan: StudyPlan, shapes: Sequence[PhaseLayout], source: str) -> list[PhaseFit]:
    """Check every phase against the network: layout hash, and the three bounds of the noise lattice.

    ``shapes``: what the network makes of the phases (``common.plan.shape``).
    Raises: PlanInvalidError (layout, vector too long), PlanWeakPrivacyError (lattice too coarse for the noise, or
    without room for it).
    """
    longest, fits = max(shape.sum_length for shape in shapes), []
    try:
        vector_spec(plan, body_length=longest, meta_words=count_layout(plan).length).check()
    except VectorRefusedError as error:
        raise PlanInvalidError(f"{source}: secure aggregation cannot carry it: {error}") from None
    for phase, shape in zip(plan.phases, shapes, strict=True):
        if shape.layout_hash != phase.layout_hash:
            raise PlanInvalidError(
                f"{source}: phase {phase.name}: layout_hash is {phase.layout_hash[:12]}…, the network's layout is "
                f"{shape.layout_hash}; write that, after checking that network and trainable part are meant"
            )
        fit = PhaseFit(phase.name, shape.num_parameters, shape.sum_length, shape.layout_hash, lattice_step(plan))
        _check_lattice(plan, phase, fit, source)
        fits.append(fit)
    return fits


def _check_lattice(plan: StudyPlan, phase: Phase, fit: PhaseFit, source: str) -> None:
    """Distributed noise only: local noise comes before rounding, which is then post-processing."""
    if plan.privacy.noise is not NoisePlacement.DISTRIBUTED:
        return
    honest = plan.secure_aggregation.honest_survivors
    share = phase.noise_multiplier * phase.clipping_norm / math.sqrt(honest)
    if share < LEAST_STEPS_PER_NOISE * fit.lattice_step:
        raise PlanWeakPrivacyError(
            f"{source}: phase {phase.name}: one site's noise ({share:.3g}) covers "
            f"{share / fit.lattice_step:.0f} lattice steps, at least {LEAST_STEPS_PER_NOISE} are needed; "
            "lower secure_aggregation.coordinate_range"
        )
    limit = plan.secure_aggregation.coordinate_range
    least = least_range(
        noise_multiplier=phase.noise_multiplier, clipping_norm=phase.clipping_norm, honest_survivors=honest
    )
    if limit < least:
        raise PlanWeakPrivacyError(
            f"{source}: phase {phase.name}: coordinate_range {limit:g} has no room for a hospital's noise beside one "
            f"patient, so noise would be cut, and the guarantee with it; raise it to {least:.3g} or more"
        )
    ratio = phase.unlabelled_clip_ratio if phase.unlabelled_sampling_rate > 0 else 1.0
    rounding = fit.lattice_step * math.sqrt(fit.sum_length) / (phase.clipping_norm * ratio)
    if rounding > MOST_ROUNDING:
        raise PlanWeakPrivacyError(
            f"{source}: phase {phase.name}: rounding adds {rounding:.3f} of the clipping norm to a patient's "
            f"contribution, at most {MOST_ROUNDING} is allowed; {_finer(plan, phase)}"
        )


def _finer(plan: StudyPlan, phase: Phase) -> str:
    """Return what makes rounding finer."""
    better = derived_norm(plan, phase) if phase.method is Method.RIDGE else phase.clipping_norm
    if better > phase.clipping_norm:
        return f"raise this phase's clipping_norm to {better:g} (the vectors of ridge have that norm, whatever it is)"
    return "lower secure_aggregation.coordinate_range"
