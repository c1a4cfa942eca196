"""The state of the global model between two rounds, and how an opened sum moves it: a pure function.

The same function runs in a live round, after a crash, and when an auditor replays the journal: there is no other way
from one model to the next.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import WeightsInvalidError
from common.plan.fitting import lattice_step
from common.plan.phases import Method, Phase
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.protocol import divisor
from common.plan.schedule import is_closing, is_evaluated, version_before
from common.plan.selection import ends_early
from common.secagg.vector import SummedVector
from common.standardisation import standardised
from server.evaluation import Evaluation, evaluate
from server.optimiser import OptimiserState, averaged, new_optimiser_state, optimiser_step
from server.phase_facts import StudyNetwork, Vector


@dataclass(frozen=True, eq=False)
class ModelState:
    """What the next order is made from.

    Attributes:
        phase, round_number: the next round. attempt: the last one applied (0: none). finished: no round is left.
        parameters: all weights of the network, float32. average: their exponential average in this phase.
        optimiser: its memory in this phase. best, best_score: the best scored model of this phase (``best_noised``).
        scores_without_gain: scores of this phase in a row that were no better than the best (early stopping).
    """

    phase: int
    round_number: int
    attempt: int
    finished: bool
    parameters: Vector
    average: Vector
    optimiser: OptimiserState
    best: Vector
    best_score: float = -math.inf
    scores_without_gain: int = 0


@dataclass(frozen=True, eq=False)
class Applied:
    """What became of a sum: the next state, the public divisor, and the score of the model that was ordered."""

    state: ModelState
    divisor: float
    evaluation: Evaluation | None


def start_state(network: StudyNetwork) -> ModelState:
    """Return the state before the first round: the public start."""
    first = network.phases[0]
    zeros = new_optimiser_state(int(first.trained.sum()))
    return ModelState(0, 1, 0, finished=False, parameters=network.start, average=network.start, optimiser=zeros,
                      best=network.start)  # fmt: skip


def apply_sum(
    plan: StudyPlan,
    network: StudyNetwork,
    state: ModelState,
    *,
    attempt: int,
    participants: tuple[str, ...],
    total: SummedVector,
) -> Applied:
    """Apply the opened sum of ``attempt`` at the state's round.

    Raises: ValueError if nobody is expected at the participants; WeightsInvalidError if the step leaves the numbers.
    """
    facts = network.phases[state.phase]
    evaluation = evaluation_of(plan, state.phase, state.round_number, meta=total.meta, participants=len(participants))
    share = divisor(plan, facts.phase, participants)
    state = _heed(plan, replace(state, attempt=attempt), evaluation)
    if is_closing(plan, state.phase, state.round_number):
        return Applied(_closed(plan, state), share, evaluation)
    direction = _direction(plan, total, share)
    optimiser, weights = _step(plan, facts.phase, state, state.parameters[facts.trained], direction)
    if not np.isfinite(weights).all():
        raise WeightsInvalidError("the step leads to weights that are not finite; lower aggregation.learning_rate")
    parameters = state.parameters.copy()
    parameters[facts.trained] = weights
    decay = 0.0 if facts.phase.method is Method.STANDARDISE else plan.aggregation.average_decay
    # frozen weights are equal in both, so they stay what they are
    average = averaged(state.average, parameters, decay=decay, steps=optimiser.steps)
    moved = replace(state, parameters=parameters, average=average, optimiser=optimiser)
    return Applied(_next_round(plan, network, moved), share, evaluation)


def _step(
    plan: StudyPlan, phase: Phase, state: ModelState, weights: Vector, direction: Vector
) -> tuple[OptimiserState, Vector]:
    """Return the optimiser's next state and the next weights: the plan's rule, or ``standardise`` in closed form."""
    if phase.method is Method.STANDARDISE:
        moved = standardised(torch.from_numpy(weights), torch.from_numpy(-direction))
        return replace(state.optimiser, steps=state.optimiser.steps + 1), moved.numpy()
    changed = {"learning_rate": phase.learning_rate, "momentum": phase.momentum}
    rule = plan.aggregation.model_copy(update={name: value for name, value in changed.items() if value is not None})
    return optimiser_step(rule, state.optimiser, weights, direction)


def result_so_far(plan: StudyPlan, state: ModelState) -> Vector:
    """Return the weights that the study would give out now: in a phase the average, unless the plan takes the last."""
    between = state.finished or state.round_number == 1 or state.round_number > plan.phases[state.phase].rounds
    return state.parameters if between or plan.aggregation.model_selection == "last" else state.average


def _direction(plan: StudyPlan, total: SummedVector, share: float) -> Vector:
    """Return d: minus the mean gradient, or plus the mean difference of weights.

    Clipped gradients travel as integers that a site has put on the plan's own lattice (``common.plan.fitting``), with
    its noise; differences of weights as real numbers, which the protocol puts on its lattice.
    """
    if plan.privacy.noise is NoisePlacement.LOCAL:
        return total.decode_sum(share)
    unit = lattice_step(plan)
    return total.decode_sum(-share * total.lattice.step / unit)


def evaluation_of(
    plan: StudyPlan, phase: int, round_number: int, *, meta: NDArray[np.uint64], participants: int
) -> Evaluation | None:
    """Return the score of the model that a round was ordered with, None where the plan does not score that version."""
    if not is_evaluated(plan, version_before(plan, phase, round_number)):
        return None
    return evaluate(plan, meta, participants)


def _next_round(plan: StudyPlan, network: StudyNetwork, state: ModelState) -> ModelState:
    """Move on; at the end of a phase the selected model is what the next one starts from, and what is closed on.

    A phase also ends where the plan's rule on scores says so; the closing round comes all the same.
    """
    planned = plan.phases[state.phase].rounds
    if state.round_number < planned and not ends_early(plan, state.scores_without_gain):
        return replace(state, round_number=state.round_number + 1)
    chosen = state.parameters if plan.aggregation.model_selection == "last" else state.average
    last = state.phase == len(plan.phases) - 1
    if last:
        closing = planned + 1
        scored = is_evaluated(plan, version_before(plan, state.phase, closing))
        return replace(state, round_number=closing, parameters=chosen, finished=not scored)
    facts = network.phases[state.phase + 1]
    return ModelState(
        phase=state.phase + 1,
        round_number=1,
        attempt=state.attempt,
        finished=False,
        parameters=chosen,
        average=chosen,
        optimiser=new_optimiser_state(int(facts.trained.sum())),
        best=chosen,
    )


def _heed(plan: StudyPlan, state: ModelState, evaluation: Evaluation | None) -> ModelState:
    """Remember the best scored model, and how long none was better; counts of nobody (NaN) say neither."""
    if evaluation is None or not math.isfinite(evaluation.score):
        return state
    gains = evaluation.score > state.best_score + plan.aggregation.least_gain
    state = replace(state, scores_without_gain=0 if gains else state.scores_without_gain + 1)
    if evaluation.score > state.best_score:
        state = replace(state, best=state.parameters, best_score=evaluation.score)
    return state


def _closed(plan: StudyPlan, state: ModelState) -> ModelState:
    """The final model was scored: with ``best_noised`` an earlier one may have been better."""
    best = plan.aggregation.model_selection == "best_noised" and math.isfinite(state.best_score)
    return replace(state, finished=True, parameters=state.best if best else state.parameters)
