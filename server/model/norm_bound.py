"""How long the opened sum of honest hospitals can be: a public bound, from the plan alone.

    m   most patients of the participants that can be sampled     C   clipping norm     s   noise in a coordinate
    d   trained parameters                                        n   participants      h   guaranteed honest survivors

    B = sum over participants of rate * declared,  declared as much as 10 % too low
    m C <= C (B_l + 6 sqrt(B_l)) + ratio C (B_u + 6 sqrt(B_u)),   s = sigma C sqrt(n / h)
    |sum|^2 <= (m C)^2 + 12 m C s + s^2 d (1 + 6 sqrt(2 / d))

Every patient pointing one way, six standard deviations of the sampling, of the noise along that way (the cross term),
and of the noise's length (chi-square): honest hospitals pass it about a billion rounds long. A hospital that adds a
vector of its own has the square root of the first, second and last term left, instead of the end of the range in every
coordinate. The sum is public when it is checked, so nobody pays for it: no epsilon, no bytes.

With local noise differences of weights travel, whose length no term above bounds, and without privacy nothing is
clipped: there is no bound then.
"""

import math
from collections.abc import Collection
from typing import Final

from common.plan.fitting import lattice_step
from common.plan.phases import Phase
from common.plan.plan import Site, StudyPlan
from common.plan.privacy import NoisePlacement

DECLARED_TOO_LOW: Final = 1.1  # declared counts are rounded, and a hospital has a few patients more a year later
DEVIATIONS: Final = 6.0


def largest_norm(plan: StudyPlan, phase: Phase, participants: Collection[str], *, num_parameters: int) -> float:
    """Return the L2 norm that the sum over ``participants`` cannot exceed, in the unit of gradients; inf: no bound."""
    if plan.privacy.noise is not NoisePlacement.DISTRIBUTED:
        return math.inf
    sites = [site for site in plan.sites if site.name in participants]
    labelled, unlabelled = _most_sampled(phase, sites)
    signal = phase.clipping_norm * (labelled + phase.unlabelled_clip_ratio * unlabelled)
    honest = plan.secure_aggregation.honest_survivors
    # what rounding to the lattice adds to a patient's norm, sites add to their noise (``client.learning.training``)
    ratio = phase.unlabelled_clip_ratio if phase.unlabelled_sampling_rate > 0 else 1.0
    rounding = lattice_step(plan) * math.sqrt(num_parameters) / (phase.clipping_norm * ratio)
    noise = phase.noise_multiplier * phase.clipping_norm * (1 + rounding) * math.sqrt(len(sites) / honest)
    signal *= 1 + rounding
    length = num_parameters + DEVIATIONS * math.sqrt(2 * num_parameters)
    return math.sqrt(signal**2 + 2 * DEVIATIONS * signal * noise + noise**2 * length)


def _most_sampled(phase: Phase, sites: Collection[Site]) -> tuple[float, float]:
    """Return the most labelled and unlabelled patients of these sites that a round can sample."""
    labelled = DECLARED_TOO_LOW * phase.labelled_sampling_rate * sum(site.labelled_patients for site in sites)
    unlabelled = DECLARED_TOO_LOW * phase.unlabelled_sampling_rate * sum(site.unlabelled_patients for site in sites)
    return labelled + DEVIATIONS * math.sqrt(labelled), unlabelled + DEVIATIONS * math.sqrt(unlabelled)
