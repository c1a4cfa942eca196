"""The server's step of a ridge phase: from the opened sum to the head, by the plan's public numbers."""

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from common.networks.ridge import Moments, ridge_head, triangle_length
from common.plan.phases import Phase
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.task import TaskKind


def solved_head(
    plan: StudyPlan, phase: Phase, total: NDArray[np.floating], participants: Collection[str]
) -> NDArray[np.float32]:
    """Return the head's parameters, weight then bias (its layout), from the sum over ``participants``.

    Shapes: total (sum_length,), in the unit of gradients. Guarantee: finite for a finite sum.
    """
    sites = [site for site in plan.sites if site.name in participants]
    classes = len(plan.task.classes)
    labelled = phase.labelled_sampling_rate * sum(site.labelled_patients for site in sites)
    unlabelled = phase.unlabelled_sampling_rate * sum(site.unlabelled_patients for site in sites)
    noise = 0.0
    if plan.privacy.noise is NoisePlacement.DISTRIBUTED:  # each site's share of it, as many as there are
        noise = phase.noise_multiplier * math.sqrt(len(sites) / plan.secure_aggregation.honest_survivors)
    triangle = triangle_length(_features(len(total), classes))
    scale = phase.clipping_norm * phase.unlabelled_clip_ratio  # of an unlabelled patient's vector
    values = total.astype(np.float64)
    moments = Moments(
        triangle=values[:triangle] / scale,
        cross=values[triangle:] / phase.clipping_norm,
        unlabelled=unlabelled,
        labelled=labelled,
        triangle_noise=noise / phase.unlabelled_clip_ratio,
        cross_noise=noise,
    )
    weight, bias = ridge_head(moments, classes=classes, several=plan.task.kind is TaskKind.MULTI_LABEL)
    return np.concatenate([weight.ravel(), bias])


def _features(length: int, classes: int) -> int:
    """Return F, whose triangle and products with labels are so many numbers: n (n + 1) / 2 + n K, n = F + 1."""
    half = classes + 0.5
    return round(math.sqrt(half * half + 2 * length) - half) - 1
