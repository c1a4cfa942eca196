"""How many full-batch steps a private linear head is worth: from public numbers alone, before anybody trains.

    r = sigma_1 sqrt(F K) / n        the noise on the mean gradient over the most that n agreeing patients give,
                                     if one step takes the whole budget
    steps = 1.5 / r^1.5, from 1 to 40

Each further step costs noise, so a tight budget takes few; what many steps could still learn drowns. Factor and power
were chosen on validation draws of two sets and held on others: docs/results.md.
"""

import math
from typing import Final

from common.plan.phases import Method, Phase, Trainable
from common.plan.plan import StudyPlan
from common.plan.shape import plan_parameters
from common.privacy.accounting import noise_multiplier_for

MOST_STEPS: Final = 40  # no more was ever better at a budget worth the name
FACTOR, POWER = 1.5, 1.5


def head_steps(*, labelled: float, noise_multiplier: float, features: int, classes: int) -> int:
    """Return the number of steps, 1 to ``MOST_STEPS``.

    ``labelled``: expected labelled patients of all sites. ``noise_multiplier``: sigma_1, of one release that takes the
    whole budget; 0 without privacy.
    """
    ratio = noise_multiplier * math.sqrt(features * classes) / max(1.0, labelled)
    return min(MOST_STEPS, max(1, round(FACTOR / ratio**POWER))) if ratio > 1e-6 else MOST_STEPS


def steps_for(plan: StudyPlan, phase: Phase) -> int | None:
    """Return the rounds that a phase is worth by ``head_steps``, from the plan's declared patients and promise.

    None where the rule says nothing: no promise, another method, more than a linear head on normed features.
    Raises: NetworkUnsuitableError.
    """
    privacy, parameters = plan.privacy, dict(plan_parameters(plan))
    norm, head = parameters.get("feature_norm.weight"), parameters.get("head.weight")
    teaches = (phase.method, phase.trainable) == (Method.SUPERVISED, Trainable.HEAD)
    if privacy.epsilon is None or privacy.delta is None or not teaches or norm is None or head is None:
        return None
    labelled = sum(site.labelled_patients for site in plan.sites)
    once = noise_multiplier_for(epsilon=privacy.epsilon, delta=privacy.delta, sampling_rate=1.0, steps=1)
    return head_steps(labelled=labelled, noise_multiplier=once, features=norm[0], classes=head[0])
