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

import numpy as np

from common.plan.aggregation import Aggregation, ServerRule
from server.phase_facts import Vector


@dataclass(frozen=True, eq=False)
class OptimiserState:
    """What an optimiser remembers of a phase. Shapes: both (trained parameters,) float32."""

    steps: int
    first: Vector
    second: Vector


def new_optimiser_state(num_parameters: int) -> OptimiserState:
    """Return the state at the start of a phase: zeros."""
    return OptimiserState(0, np.zeros(num_parameters, np.float32), np.zeros(num_parameters, np.float32))


def optimiser_step(
    rule: Aggregation, state: OptimiserState, weights: Vector, direction: Vector
) -> tuple[OptimiserState, Vector]:
    """Return the next state and the next weights.

    Shapes: weights, direction (trained parameters,) float32, unchanged; the result likewise, new.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
        return _step(rule, state, weights, direction)


def _step(
    rule: Aggregation, state: OptimiserState, weights: Vector, direction: Vector
) -> tuple[OptimiserState, Vector]:
    steps, b1, b2 = state.steps + 1, rule.momentum, rule.second_momentum
    lr = np.float32(rule.learning_rate)
    if rule.rule is ServerRule.MEAN:
        return OptimiserState(steps, state.first, state.second), weights + lr * direction
    if rule.rule is ServerRule.MOMENTUM:
        first = np.float32(b1) * state.first + direction
        return OptimiserState(steps, first, state.second), weights + lr * first
    first = np.float32(b1) * state.first + np.float32(1 - b1) * direction
    square = direction * direction
    if rule.rule is ServerRule.ADAM:
        second = np.float32(b2) * state.second + np.float32(1 - b2) * square
    else:
        second = state.second - np.float32(1 - b2) * (np.sign(state.second - square) * square)
    mean = first / np.float32(1 - power(b1, steps))
    spread = np.sqrt(second / np.float32(1 - power(b2, steps))) + np.float32(rule.adaptivity)
    return OptimiserState(steps, first, second), weights + lr * (mean / spread)


def averaged(average: Vector, weights: Vector, *, decay: float, steps: int) -> Vector:
    """Return the exponential average of the models of a phase after ``steps`` rounds; unbiased from the first on.

        avg_t = (1 - d) sum_i d^(t - i) theta_i / (1 - d^t) = avg_{t-1} + (theta_t - avg_{t-1}) (1 - d) / (1 - d^t)

    With decay 0, and after the first round, it is the model itself.
    """
    if decay == 0 or steps == 1:
        return weights.copy()
    share = np.float32((1 - decay) / (1 - power(decay, steps)))
    return average + (weights - average) * share


def power(base: float, exponent: int) -> float:
    """Return base^exponent by multiplication: ``**`` asks the C library, which may differ in the last bit."""
    result = 1.0
    for _ in range(exponent):
        result *= base
        if result < 1e-30:  # 1 - result is 1.0 from here on
            return 0.0
    return result
