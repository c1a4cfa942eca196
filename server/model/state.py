"""The state of the global model between two rounds, and how an opened sum moves it: a pure function.

The same function runs in a live round, after a crash, and when an auditor replays the journal: there is no other way
from one model to the next. A live round reads the old state from its file and writes the new one block by block: it
holds the sum and the new parameters, and nothing else of their size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.plan.fitting import lattice_step
from common.plan.phases import CLOSED_FORMS, Method
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.protocol import divisor
from common.plan.schedule import is_closing, is_evaluated, version_before
from common.plan.selection import ends_early
from common.secagg.accumulator import SummedVector
from server.model.blocks import Computed, Vector, Weights, part_of, whole
from server.model.evaluation import Evaluation, evaluate
from server.model.group_median import GroupSum, median, summed_counts
from server.model.optimiser import OptimiserState, computed_average, new_optimiser_state
from server.model.phase_facts import StudyNetwork
from server.model.phase_step import phase_step, with_part
from server.model.ridge_step import solved_head

W_co = TypeVar("W_co", bound=Weights, covariant=True)


@dataclass(frozen=True, eq=False)
class StateOf(Generic[W_co]):
    """What the next order is made from: with its vectors in memory (``ModelState``), or wherever they lie.

    Vectors that are equal because of how a state came about are one object, and are stored once.

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
    parameters: W_co
    average: W_co
    optimiser: OptimiserState
    best: W_co
    best_score: float = -math.inf
    scores_without_gain: int = 0


ModelState = StateOf[Vector]


@dataclass(frozen=True, eq=False)
class Applied(Generic[W_co]):
    """What became of a sum: the next state, the public divisor, and the score of the model that was ordered."""

    state: StateOf[W_co]
    divisor: float
    evaluation: Evaluation | None


def start_state(network: StudyNetwork) -> ModelState:
    """Return the state before the first round, in memory: the public start."""
    return in_memory(state_from(network.start))


def state_from(start: Weights) -> StateOf[Weights]:
    """Return the state before the first round, where ``start`` lies."""
    return StateOf(0, 1, 0, finished=False, parameters=start, average=start, optimiser=new_optimiser_state(),
                   best=start)  # fmt: skip


def in_memory(state: StateOf[Weights]) -> ModelState:
    """Return the state with every vector whole; what is one object stays one."""
    held: dict[int, Vector] = {}

    def hold(weights: Weights) -> Vector:
        if id(weights) not in held:
            held[id(weights)] = whole(weights)
        return held[id(weights)]

    memory = state.optimiser
    return ModelState(
        phase=state.phase,
        round_number=state.round_number,
        attempt=state.attempt,
        finished=state.finished,
        parameters=hold(state.parameters),
        average=hold(state.average),
        optimiser=OptimiserState(memory.steps, hold(memory.first), hold(memory.second)),
        best=hold(state.best),
        best_score=state.best_score,
        scores_without_gain=state.scores_without_gain,
    )


def apply_sum(
    plan: StudyPlan,
    network: StudyNetwork,
    state: StateOf[Weights],
    *,
    attempt: int,
    participants: tuple[str, ...],
    total: SummedVector,
    is_scored: bool = True,
) -> Applied[Vector]:
    """Apply the opened sum of ``attempt`` at the state's round; the next state is in memory, state and sum stay.

    ``is_scored``: its counts are surely scores (``server.study.score_limit``); otherwise they are read as nothing.
    Raises: ValueError if nobody is expected at the participants; WeightsInvalidError if the step leaves the numbers.
    """
    applied = computed_sum(
        plan, network, state, attempt=attempt, participants=participants, total=total, is_scored=is_scored
    )
    return Applied(in_memory(applied.state), applied.divisor, applied.evaluation)


def computed_sum(
    plan: StudyPlan,
    network: StudyNetwork,
    state: StateOf[Weights],
    *,
    attempt: int,
    participants: tuple[str, ...],
    total: SummedVector,
    is_scored: bool = True,
) -> Applied[Weights]:
    """Apply the opened sum as ``apply_sum`` does: the next parameters in memory, all else as formulae over blocks.

    State and sum must stay as they are while the result is used. Raises: as ``apply_sum``.
    """
    phase = network.phases[state.phase].phase
    share, there = divisor(plan, phase, participants), len(participants)
    evaluation = evaluation_of(
        plan, state.phase, state.round_number, meta=total.meta, participants=there, is_scored=is_scored
    )
    state = replace(state, attempt=attempt)
    direction = _direction(plan, total, share)
    if phase.method is Method.RIDGE and not is_closing(plan, state.phase, state.round_number):
        direction = solved_head(plan, phase, whole(_direction(plan, total, -1.0)), participants)
    return _moved(plan, network, state, evaluation, direction=direction, share=share)


def computed_median(
    plan: StudyPlan,
    network: StudyNetwork,
    state: StateOf[Weights],
    groups: Sequence[GroupSum],
    *,
    is_scored: bool = True,
) -> Applied[Weights]:
    """Apply the opened sums of a round's groups: one step on the median of their means; counts of patients add up.

    ``divisor`` is that of the last group. Result and errors: as ``computed_sum``.
    """
    phase = network.phases[state.phase].phase
    shares = [divisor(plan, phase, group.participants) for group in groups]
    counted = sum(len(group.participants) for group in groups)
    counts = summed_counts([group.total.meta for group in groups])
    evaluation = evaluation_of(
        plan, state.phase, state.round_number, meta=counts, participants=counted, is_scored=is_scored
    )
    middle = median([_direction(plan, group.total, share) for group, share in zip(groups, shares, strict=True)])
    state = replace(state, attempt=groups[-1].attempt)
    return _moved(plan, network, state, evaluation, direction=middle, share=shares[-1])


def _moved(
    plan: StudyPlan,
    network: StudyNetwork,
    state: StateOf[Weights],
    evaluation: Evaluation | None,
    *,
    direction: Weights,
    share: float,
) -> Applied[Weights]:
    """Take the step of the state's round along ``direction``, after heeding the score of the model before it.

    ``direction``: of a ridge phase the head that was solved for.
    """
    facts = network.phases[state.phase]
    state = _heed(plan, state, evaluation)
    if is_closing(plan, state.phase, state.round_number):
        return Applied(_closed(plan, state), share, evaluation)
    optimiser, weights = phase_step(
        plan, facts.phase, state.optimiser, part_of(state.parameters, facts.trained), direction
    )
    parameters = with_part(state.parameters, facts.trained, weights)
    decay = 0.0 if facts.phase.method in CLOSED_FORMS else plan.aggregation.average_decay
    # frozen weights are equal in both, so they stay what they are
    average = computed_average(state.average, parameters, decay=decay, steps=optimiser.steps)
    moved = replace(state, parameters=parameters, average=average, optimiser=optimiser)
    return Applied(_next_round(plan, moved), share, evaluation)


def result_so_far(plan: StudyPlan, state: StateOf[W_co]) -> W_co:
    """Return the weights that the study would give out now: in a phase the average, unless the plan takes the last."""
    between = state.finished or state.round_number == 1 or state.round_number > plan.phases[state.phase].rounds
    return state.parameters if between or plan.aggregation.model_selection == "last" else state.average


def _direction(plan: StudyPlan, total: SummedVector, share: float) -> Weights:
    """Return d: minus the mean gradient, or plus the mean difference of weights.

    Clipped gradients travel as integers that a site has put on the plan's own lattice (``common.plan.fitting``), with
    its noise; differences of weights as real numbers, which the protocol puts on its lattice.
    """
    local = plan.privacy.noise is NoisePlacement.LOCAL
    by = share if local else -share * total.lattice.step / lattice_step(plan)

    def decoded(block: slice) -> Vector:
        return replace(total, body_sum=total.body_sum[block]).decode_sum(by)

    return Computed(total.body_sum.size, decoded)


def evaluation_of(
    plan: StudyPlan, phase: int, round_number: int, *, meta: NDArray[np.uint64], participants: int, is_scored: bool
) -> Evaluation | None:
    """Return the score of the model that a round was ordered with.

    None where the plan does not score that version, or where sites may have sent noise instead (not ``is_scored``).
    """
    if not is_scored or not is_evaluated(plan, version_before(plan, phase, round_number)):
        return None
    return evaluate(plan, meta, participants)


def _next_round(plan: StudyPlan, state: StateOf[Weights]) -> StateOf[Weights]:
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
    return StateOf(
        phase=state.phase + 1,
        round_number=1,
        attempt=state.attempt,
        finished=False,
        parameters=chosen,
        average=chosen,
        optimiser=new_optimiser_state(),
        best=chosen,
    )


def _heed(plan: StudyPlan, state: StateOf[Weights], evaluation: Evaluation | None) -> StateOf[Weights]:
    """Remember the best scored model, and how long none was better; counts of nobody (NaN) say neither."""
    if evaluation is None or not math.isfinite(evaluation.score):
        return state
    gains = evaluation.score > state.best_score + plan.aggregation.least_gain
    state = replace(state, scores_without_gain=0 if gains else state.scores_without_gain + 1)
    if evaluation.score > state.best_score:
        state = replace(state, best=state.parameters, best_score=evaluation.score)
    return state


def _closed(plan: StudyPlan, state: StateOf[Weights]) -> StateOf[Weights]:
    """The final model was scored: with ``best_noised`` an earlier one may have been better."""
    best = plan.aggregation.model_selection == "best_noised" and math.isfinite(state.best_score)
    return replace(state, finished=True, parameters=state.best if best else state.parameters)
