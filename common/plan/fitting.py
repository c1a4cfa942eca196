"""Does each phase's layout fit the network, are the masked words fine enough for its noise, and have they room?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.plan.errors import PlanInvalidError, PlanWeakPrivacyError
from common.plan.phases import Phase
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.protocol import vector_spec
from common.plan.schedule import count_layout
from common.plan.shape import PhaseLayout
from common.secagg.errors import VectorRefusedError

LEAST_STEPS_PER_NOISE = 1024  # privacy.md section 2: the noise share of a site covers at least so many lattice steps
LARGEST_NOISE = 8.6  # standard deviations: no draw is larger (privacy.md section 2)
MOST_ROUNDING = 0.01  # of the clipping norm: how much rounding to the lattice may add to one patient's contribution


@dataclass(frozen=True)
class PhaseFit:
    """What a phase sends: number of trained parameters, digest of their layout, lattice step of one coordinate."""

    name: str
    num_parameters: int
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


def check_fit(plan: StudyPlan, shapes: Sequence[PhaseLayout], source: str) -> list[PhaseFit]:
    """Check every phase against the network: layout hash, and the three bounds of the noise lattice.

    ``shapes``: what the network makes of the phases (``common.plan.shape``).
    Raises: PlanInvalidError (layout, vector too long), PlanWeakPrivacyError (lattice too coarse for the noise, or
    without room for it).
    """
    longest, fits = max(shape.num_parameters for shape in shapes), []
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
        fit = PhaseFit(phase.name, shape.num_parameters, shape.layout_hash, lattice_step(plan))
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
    rounding = fit.lattice_step * math.sqrt(fit.num_parameters) / (phase.clipping_norm * ratio)
    if rounding > MOST_ROUNDING:
        raise PlanWeakPrivacyError(
            f"{source}: phase {phase.name}: rounding adds {rounding:.3f} of the clipping norm to a patient's "
            f"contribution, at most {MOST_ROUNDING} is allowed; lower secure_aggregation.coordinate_range"
        )
