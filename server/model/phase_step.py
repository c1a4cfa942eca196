"""One step of a phase: the optimiser's rule with the plan's numbers, or a closed form; and the new weights in place."""

from dataclasses import replace

import numpy as np
import torch

from common.networks.errors import WeightsInvalidError
from common.networks.prior import log_odds
from common.networks.standardisation import standardised
from common.plan.learning_rate import share_of_learning_rate
from common.plan.phases import Method, Phase
from common.plan.plan import StudyPlan
from server.model.blocks import Vector, Weights, blocks, whole
from server.model.optimiser import OptimiserState, computed_step


def phase_step(
    plan: StudyPlan, phase: Phase, memory: OptimiserState, weights: Weights, direction: Weights
) -> tuple[OptimiserState, Weights]:
    """Return the optimiser's next state and the next weights: the plan's rule, or a closed form."""
    after = replace(memory, steps=memory.steps + 1)
    if phase.method is Method.RIDGE:
        return after, direction
    if phase.method is Method.PRIOR:
        odds = log_odds(-whole(direction), size=plan.prior_size, smoothing_px=phase.prior_smoothing_px)
        return after, odds
    if phase.method is Method.STANDARDISE:
        norm, gradient = whole(weights), -whole(direction)
        moved = standardised(torch.from_numpy(norm), torch.from_numpy(gradient))
        return after, moved.numpy()
    changed = {"learning_rate": phase.learning_rate, "momentum": phase.momentum}
    rule = plan.aggregation.model_copy(update={name: value for name, value in changed.items() if value is not None})
    share = share_of_learning_rate(phase, after.steps)
    if share != 1:
        rule = rule.model_copy(update={"learning_rate": share * rule.learning_rate})
    return computed_step(rule, memory, weights, direction)


def with_part(parameters: Weights, part: slice, weights: Weights) -> Vector:
    """Return all parameters in memory, new: those of ``part`` are ``weights``. Raises: WeightsInvalidError."""
    moved = np.empty(parameters.size, np.float32)
    for frozen in (slice(0, part.start), slice(part.stop, parameters.size)):
        for block in blocks(frozen.stop - frozen.start):
            at = slice(frozen.start + block.start, frozen.start + block.stop)
            moved[at] = parameters[at]
    for block in blocks(weights.size):
        found = weights[block]
        if not np.isfinite(found).all():
            raise WeightsInvalidError("the step leads to weights that are not finite; lower aggregation.learning_rate")
        moved[part.start + block.start : part.start + block.stop] = found
    return moved
