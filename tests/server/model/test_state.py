"""How a sum moves the model: signs, units, divisors, phases, selection."""

from dataclasses import replace

import numpy as np
import pytest

from common.networks.errors import WeightsInvalidError
from common.plan.fitting import lattice_step
from common.plan.network import phase_layout, plan_network
from common.plan.protocol import divisor
from common.plan.reading import parse_plan
from common.secagg.accumulator import SummedVector
from server.model.blocks import Computed
from server.model.optimiser import NOTHING, OptimiserState
from server.model.phase_facts import named_parameters, study_network
from server.model.state import apply_sum, start_state

SITES = tuple(f"site-{number}" for number in range(1, 5))
PLAIN = {"rule": "mean", "learning_rate": 1.0, "average_decay": 0.0}


@pytest.fixture
def planned(small_document):
    """Return plan and network of the small study with sections changed."""

    def make(*, noise="distributed", **sections):
        document = small_document(SITES, noise=noise)
        for name, values in sections.items():
            document[name] = values if isinstance(values, list) else document[name] | values
        network = plan_network(parse_plan(document, "test"))
        for phase in document["phases"]:
            draft = next(p for p in parse_plan(document, "test").phases if p.name == phase["name"])
            phase["layout_hash"] = phase_layout(network, draft).digest
        plan = parse_plan(document, "test")
        return plan, study_network(plan)

    return make


def summed(network, phase, value, *, meta=None):
    spec = network.phases[phase].vector
    body = np.full(spec.body_length, value, np.int32)
    return SummedVector(np.zeros(spec.meta_words, np.uint64) if meta is None else meta, body, 4, spec.lattice)


def step(planned_study, state, value, *, attempt=1, participants=SITES):
    plan, network = planned_study
    total = summed(network, state.phase, value)
    return apply_sum(plan, network, state, attempt=attempt, participants=participants, total=total)


def test_a_gradient_is_followed_downhill_and_an_integer_is_worth_what_the_sites_mean(planned):
    study = planned(aggregation=PLAIN)
    plan, network = study
    before = start_state(network)
    after = step(study, before, 1_000_000).state
    moved = (after.parameters - before.parameters)[network.phases[0].trained]
    expected = -1_000_000 * lattice_step(plan) / divisor(plan, plan.phases[0], SITES)
    assert moved == pytest.approx(np.full(moved.size, expected), rel=1e-5)


def test_a_difference_of_weights_is_added(planned):
    study = planned(noise="local", aggregation=PLAIN)
    plan, network = study
    before = start_state(network)
    after = step(study, before, 1_000_000).state
    moved = (after.parameters - before.parameters)[network.phases[0].trained]
    expected = 1_000_000 * network.phases[0].vector.lattice.step / divisor(plan, plan.phases[0], SITES)
    assert moved == pytest.approx(np.full(moved.size, expected), rel=1e-5)


def test_the_divisor_is_that_of_the_sites_in_the_sum(planned):
    study = planned(aggregation=PLAIN)
    assert step(study, start_state(study[1]), 1).divisor == 80.0
    assert step(study, start_state(study[1]), 1, participants=SITES[:3]).divisor == 60.0


def test_what_a_phase_does_not_train_stays_to_the_last_bit(planned):
    study = planned()
    _, network = study
    frozen = np.ones(network.everything.num_parameters, bool)
    frozen[network.phases[0].trained] = False
    state, start = start_state(network), network.start
    for attempt in (1, 2):
        state = step(study, state, 12345, attempt=attempt).state
        assert state.parameters[frozen].tobytes() == start[frozen].tobytes()
        assert state.average[frozen].tobytes() == start[frozen].tobytes()
    assert (state.phase, state.round_number, state.optimiser.steps) == (1, 1, 0)
    assert state.optimiser.first.size == 0  # zeros


@pytest.mark.parametrize("selection", ["last", "last_average"])
def test_the_next_phase_starts_from_the_selected_model(planned, selection):
    study = planned(aggregation=PLAIN | {"model_selection": selection, "average_decay": 0.5})
    head = study[1].phases[0].trained
    start = start_state(study[1])
    first = step(study, start, 3_000_000).state
    second = step(study, first, 3_000_000, attempt=2).state
    moved = (first.parameters - start.parameters)[head]
    # the models are start + m and start + 2 m; their average with decay 1/2 is start + (1/3 + 4/3) m
    distance = {"last": 2.0, "last_average": 5 / 3}[selection]
    assert second.phase == 1
    assert (second.parameters - start.parameters)[head] == pytest.approx(distance * moved, rel=1e-4)
    assert np.array_equal(second.average, second.parameters)


def test_a_step_that_leaves_the_numbers_is_refused(planned):
    study = planned(aggregation=PLAIN | {"rule": "momentum", "learning_rate": 1000.0})
    state = start_state(study[1])
    largest = np.full(summed(study[1], 0, 1).body_sum.size, np.finfo(np.float32).max, np.float32)
    state = replace(state, optimiser=OptimiserState(3, largest, NOTHING))
    with pytest.raises(WeightsInvalidError, match="not finite"):
        step(study, state, 1)


def test_what_an_earlier_phase_trained_travels_on_with_later_orders(planned, small_document):
    phases = small_document(SITES, noise="distributed")["phases"]  # head first, then all: here the other way round
    last = dict(phases[0], maximum_attempts=phases[0]["rounds"] + 1)
    _, network = planned(phases=[phases[1], last])
    everything, head = network.phases
    size = network.everything.num_parameters
    assert everything.travels == head.travels == (slice(0, size),)
    assert everything.travelling_parameters == head.travelling_parameters == size
    assert everything.trained == slice(0, size)
    assert head.trained.stop == size > head.trained.start > 0
    assert head.frozen_digest == bytes(32)


def test_named_parameters_are_views_of_the_vector_in_its_order(planned):
    _, network = planned()
    start = network.start
    named = named_parameters(network, start)
    assert np.array_equal(np.concatenate([part.reshape(-1) for part in named.values()]), start)
    assert all(np.shares_memory(part, start) for part in named.values())


def test_the_digest_of_a_model_is_the_same_read_block_by_block(planned, monkeypatch):
    monkeypatch.setattr("server.model.blocks.BLOCK", 1000)
    _, network = planned()
    start = network.start
    in_a_file = Computed(start.size, lambda block: start[block].copy())
    for facts in network.phases:
        expected = facts.model_digest(facts.travelling(start))
        assert facts.digest_of(in_a_file) == expected
        assert facts.digest_of(start + 1) != expected
