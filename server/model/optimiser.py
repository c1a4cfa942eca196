"""The server's step on the mean of a round: mean, momentum, adam or yogi, in numpy, the same bits on every machine.

    d      the direction: - mean gradient (distributed noise, or none), + mean difference of weights (local noise)
    mean       theta <- theta + lr d
    momentum   m <- b1 m + d;               theta <- theta + lr m
    adam       m <- b1 m + (1 - b1) d;  v <- b2 v + (1 - b2) d^2
               theta <- theta + lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + a)
    yogi       as adam, with v <- v - (1 - b2) sign(v - d^2) d^2

lr, b1, b2, a = ``learning_rate``, ``momentum``, ``second_momentum``, ``adaptivity`` of the plan; t counts the steps of
a phase from 1. Each operation is one rounded float32 operation on each coordinate, so replaying the sums of the
journal gives the model bit for bit. All of it is post-processing of a sum that was released already.

Sources: McMahan et al. 2017 (mean); Hsu et al. 2019 (momentum); Reddi et al. 2021, algorithm 2 (adam, yogi), with the
bias correction of Kingma & Ba 2015, because a phase may have only 20 rounds.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from common.plan.aggregation import Aggregation, ServerRule
from server.model.blocks import Computed, Vector, Weights

NOTHING: Final[Vector] = np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class OptimiserState:
    """What an optimiser remembers of a phase.

    Shapes: first, second (trained parameters,) float32; an empty one stands for zeros. ``mean`` remembers nothing,
    ``momentum`` the first, ``adam`` and ``yogi`` both: on disk, and block by block in memory, each is one model more.
    """

    steps: int
    first: Weights
    second: Weights


def new_optimiser_state() -> OptimiserState:
    """Return the state at the start of a phase: zeros."""
    return OptimiserState(0, NOTHING, NOTHING)


def computed_step(
    rule: Aggregation, state: OptimiserState, weights: Weights, direction: Weights
) -> tuple[OptimiserState, Weights]:
    """Return ``optimiser_step`` as formulae over blocks: nothing is computed before somebody asks for a block.

    Shapes as for ``optimiser_step``; state, weights and direction must stay as they are while the result is used.
    """

    def step(block: slice) -> tuple[OptimiserState, Vector]:
        memory = OptimiserState(state.steps, state.first[block], state.second[block])
        return optimiser_step(rule, memory, weights[block], direction[block])

    size = weights.size
    keeps_first, keeps_second = rule.rule is not ServerRule.MEAN, rule.rule in {ServerRule.ADAM, ServerRule.YOGI}
    after = OptimiserState(
        state.steps + 1,
        Computed(size, lambda block: step(block)[0].first[:]) if keeps_first else NOTHING,
        Computed(size, lambda block: step(block)[0].second[:]) if keeps_second else NOTHING,
    )
    return after, Computed(size, lambda block: step(block)[1])


def optimiser_step(
    rule: Aggregation, state: OptimiserState, weights: Vector, direction: Vector
) -> tuple[OptimiserState, Vector]:
    """Return the next state and the next weights.

    Shapes: weights, direction (trained parameters,) float32, unchanged; the result likewise, new.
    """
    first, second = (memory[:] if memory.size else np.zeros_like(weights) for memory in (state.first, state.second))
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
        return _step(rule, state.steps + 1, (first, second), weights, direction)


def _step(
    rule: Aggregation, steps: int, memory: tuple[Vector, Vector], weights: Vector, direction: Vector
) -> tuple[OptimiserState, Vector]:
    (first, second), b1, b2 = memory, rule.momentum, rule.second_momentum
    lr = np.float32(rule.learning_rate)
    if rule.rule is ServerRule.MEAN:
        return OptimiserState(steps, NOTHING, NOTHING), weights + lr * direction
    if rule.rule is ServerRule.MOMENTUM:
        first = np.float32(b1) * first + direction
        return OptimiserState(steps, first, NOTHING), weights + lr * first
    first = np.float32(b1) * first + np.float32(1 - b1) * direction
    square = direction * direction
    if rule.rule is ServerRule.ADAM:
        second = np.float32(b2) * second + np.float32(1 - b2) * square
    else:
        second = second - np.float32(1 - b2) * (np.sign(second - square) * square)
    mean = first / np.float32(1 - power(b1, steps))
    spread = np.sqrt(second / np.float32(1 - power(b2, steps))) + np.float32(rule.adaptivity)
    return OptimiserState(steps, first, second), weights + lr * (mean / spread)


def averaged(average: Vector, weights: Vector, *, decay: float, steps: int) -> Vector:
    """Return the exponential average of the models of a phase after ``steps`` rounds; unbiased from the first on.

        avg_t = (1 - d) sum_i d^(t - i) theta_i / (1 - d^t) = avg_{t-1} + (theta_t - avg_{t-1}) (1 - d) / (1 - d^t)

    With decay 0, and after the first round, it is the model itself (the same array).
    """
    if decay == 0 or steps == 1:
        return weights
    share = np.float32((1 - decay) / (1 - power(decay, steps)))
    return average + (weights - average) * share


def computed_average(average: Weights, weights: Vector, *, decay: float, steps: int) -> Weights:
    """Return ``averaged`` as a formula over blocks, or ``weights`` where that is the average."""
    if decay == 0 or steps == 1:
        return weights
    return Computed(weights.size, lambda block: averaged(average[block], weights[block], decay=decay, steps=steps))


def power(base: float, exponent: int) -> float:
    """Return base^exponent by multiplication: ``**`` asks the C library, which may differ in the last bit."""
    result = 1.0
    for _ in range(exponent):
        result *= base
        if result < 1e-30:  # 1 - result is 1.0 from here on
            return 0.0
    return result
