"""The server's steps against torch's optimisers and against the papers' formulae in plain Python."""

import math

import numpy as np
import pytest
import torch

from common.plan.aggregation import Aggregation, ServerRule
from server.model.optimiser import OptimiserState, averaged, new_optimiser_state, optimiser_step, power

STEPS, SIZE = 12, 40


def directions():
    generator = np.random.default_rng(7)
    return [(generator.normal(size=SIZE) * 10.0 ** generator.integers(-4, 2)).astype(np.float32) for _ in range(STEPS)]


def walk(rule):
    state, weights = new_optimiser_state(), np.linspace(-1, 1, SIZE, dtype=np.float32)
    for direction in directions():
        state, weights = optimiser_step(rule, state, weights, direction)
    assert weights.dtype == np.float32
    return weights


def torch_walk(make):
    weights = torch.nn.Parameter(torch.linspace(-1, 1, SIZE))
    optimiser = make([weights])
    for direction in directions():
        weights.grad = -torch.from_numpy(direction)
        optimiser.step()
    return weights.detach().numpy()


ORACLES = {
    "mean is plain SGD": (
        Aggregation(rule=ServerRule.MEAN, learning_rate=0.3),
        lambda p: torch.optim.SGD(p, lr=0.3),
    ),
    "momentum is SGD with momentum": (
        Aggregation(rule=ServerRule.MOMENTUM, learning_rate=0.3, momentum=0.8),
        lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.8),
    ),
    "adam is Adam": (
        Aggregation(rule=ServerRule.ADAM, learning_rate=0.05, momentum=0.9, second_momentum=0.99, adaptivity=1e-3),
        lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.9, 0.99), eps=1e-3),
    ),
}


@pytest.mark.parametrize(("rule", "make"), ORACLES.values(), ids=ORACLES)
def test_a_rule_is_what_its_name_says(rule, make):
    assert walk(rule) == pytest.approx(torch_walk(make), abs=2e-5)


def test_yogi_follows_the_formula_of_its_paper():
    rule = Aggregation(rule=ServerRule.YOGI, learning_rate=0.05, momentum=0.9, second_momentum=0.99, adaptivity=1e-3)
    weights, m, v = np.linspace(-1, 1, SIZE), np.zeros(SIZE), np.zeros(SIZE)
    for t, d in enumerate(directions(), start=1):
        m = 0.9 * m + 0.1 * d
        v = v - 0.01 * np.sign(v - d.astype(float) ** 2) * d.astype(float) ** 2
        weights = weights + 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-3)
    assert walk(rule) == pytest.approx(weights, abs=2e-5)


@pytest.mark.parametrize("rule", list(ServerRule))
def test_inputs_stay_as_they_are_and_the_same_input_gives_the_same_bits(rule):
    memory = [np.linspace(low, 2, SIZE, dtype=np.float32) for low in (-1, 0)]
    state, weights, direction = OptimiserState(3, *memory), np.ones(SIZE, np.float32), directions()[0]
    before = tuple(vector.copy() for vector in (*memory, weights, direction))
    once, twice = (optimiser_step(Aggregation(rule=rule), state, weights, direction)[1] for _ in range(2))
    assert once.tobytes() == twice.tobytes()
    assert all(np.array_equal(a, b) for a, b in zip(before, (*memory, weights, direction), strict=True))


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_the_weighted_mean_of_the_models_of_the_phase_and_of_nothing_before(decay):
    models = directions()
    average = np.full(SIZE, 1e6, np.float32)  # what was there before must not count
    for steps, model in enumerate(models, start=1):
        average = averaged(average, model, decay=decay, steps=steps)
    shares = np.array([decay ** (STEPS - i) for i in range(1, STEPS + 1)])
    expected = (shares[:, None] * np.array(models, float)).sum(0) / shares.sum()
    assert average == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_without_decay_the_average_is_the_last_model():
    first, last = directions()[:2]
    assert np.array_equal(averaged(first, last, decay=0.0, steps=2), last)


@pytest.mark.parametrize(("base", "exponent"), [(0.9, 0), (0.9, 1), (0.99, 500), (0.0, 3)])
def test_power_is_a_power(base, exponent):
    assert math.isclose(power(base, exponent), base**exponent, rel_tol=1e-12)
