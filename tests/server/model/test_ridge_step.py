"""The server's step of a ridge phase: units, divisors and noise of the plan, and a closing round that moves nothing."""

import math

import numpy as np
import pytest

from common.networks.ridge import Moments, moments_length, ridge_head, triangle_length
from common.plan.errors import PlanWeakPrivacyError
from common.plan.fitting import check_fit, derived_norm, derived_range, lattice_step
from common.plan.guarantee import labelled_events, unlabelled_events
from common.plan.phases import Method
from common.plan.reading import parse_plan
from common.plan.schedule import takes_patients
from common.plan.shape import phase_layouts
from common.secagg.accumulator import SummedVector
from server.model.phase_facts import study_network
from server.model.state import apply_sum, result_so_far, start_state

SITES = tuple(f"site-{number}" for number in range(1, 5))
FEATURES, CLASSES = 28, 2
RIDGE = {
    "name": "ridge", "method": "ridge", "trainable": "head", "rounds": 1, "maximum_attempts": 2,
    "labelled_sampling_rate": 0.5, "unlabelled_sampling_rate": 1.0, "unlabelled_clip_ratio": 0.5, "clipping_norm": 2.0,
}  # fmt: skip


@pytest.fixture
def ridge(small_document):
    """Return plan and network of a study whose only phase, or last of two, is ridge."""

    def make(*, noise="distributed", first=(), counts=(40, 100), **changes):
        document = small_document(SITES, noise=noise)
        document["sites"] = [
            {"name": name, "labelled_patients": counts[0], "unlabelled_patients": counts[1] * (number + 1)}
            for number, name in enumerate(SITES)
        ]
        if noise == "distributed":
            document["privacy"]["delta"] = 1e-6
        usual = document["phases"][0] | RIDGE | changes
        document["phases"] = [*(document["phases"][0] | each for each in first), usual]
        if noise == "none":
            usual |= {"clipping_norm": 1.0, "unlabelled_clip_ratio": 0.1}
        hashes = [layout.layout_hash for layout in phase_layouts(parse_plan(document, "test"))]
        document["phases"] = [
            phase | {"layout_hash": found} for phase, found in zip(document["phases"], hashes, strict=True)
        ]
        plan = parse_plan(document, "test")
        return plan, study_network(plan)

    return make


def made_up(network, seed=0):
    spec = network.phases[-1].vector
    body = np.random.default_rng(seed).integers(-10_000, 10_000, spec.body_length).astype(np.int32)
    return SummedVector(np.zeros(spec.meta_words, np.uint64), body, len(SITES), spec.lattice)


@pytest.mark.parametrize("noise", ["distributed", "none"])
@pytest.mark.parametrize("there", [SITES, SITES[:3]])
def test_the_head_is_solved_with_the_numbers_of_the_sites_in_the_sum(ridge, noise, there):
    plan, network = ridge(noise=noise)
    total = made_up(network)
    after = apply_sum(plan, network, start_state(network), attempt=1, participants=there, total=total).state
    phase, values = plan.phases[0], total.body_sum * lattice_step(plan)
    assert len(values) == moments_length(FEATURES, CLASSES)
    spread = phase.noise_multiplier * math.sqrt(len(there) / plan.secure_aggregation.honest_survivors)
    triangle, ratio = triangle_length(FEATURES), phase.unlabelled_clip_ratio
    moments = Moments(
        triangle=values[:triangle] / (phase.clipping_norm * ratio),
        cross=values[triangle:] / phase.clipping_norm,
        unlabelled=sum(100 * (number + 1) for number in range(len(there))),
        labelled=0.5 * 40 * len(there),
        triangle_noise=spread / ratio,
        cross_noise=spread,
    )
    weight, bias = ridge_head(moments, classes=CLASSES, several=False)
    expected = np.concatenate([weight.ravel(), bias])
    found = after.parameters[network.phases[0].trained]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(result_so_far(plan, after), after.parameters)


def test_a_closing_round_after_ridge_reads_nobody_and_moves_nothing(ridge):
    plan, network = ridge()
    assert [takes_patients(plan, 0, number) for number in (1, 2)] == [True, False]
    state = start_state(network)
    for attempt in (1, 2):
        before, total = state, made_up(network, attempt)
        state = apply_sum(plan, network, state, attempt=attempt, participants=SITES, total=total).state
    assert state.finished
    np.testing.assert_array_equal(state.parameters, before.parameters)


def test_the_noise_is_accounted_for_one_release_and_each_further_attempt(ridge):
    for attempts, releases in ((2, 1), (4, 3)):
        plan, _ = ridge(maximum_attempts=attempts)
        assert [event.steps for event in labelled_events(plan)] == [releases]
        assert [(event.steps, event.noise_multiplier) for event in unlabelled_events(plan)] == [(releases, 4.0)]


def test_ridge_before_another_phase_has_no_attempt_to_itself(ridge, small_document):
    document = small_document(SITES, noise="distributed")
    ridge_first = document["phases"][0] | RIDGE
    plan, _ = ridge(first=[ridge_first | {"name": "first"}])
    assert [event.steps for event in labelled_events(plan)] == [2, 1]


def test_the_range_is_room_for_moments_and_the_norm_follows_from_the_other_phases(ridge):
    standardise = {
        "name": "first", "method": "standardise", "trainable": "feature_norm", "labelled_sampling_rate": 0.0,
        "unlabelled_sampling_rate": 1.0, "unlabelled_clip_ratio": 1.0, "clipping_norm": 2.0,
    }  # fmt: skip
    plan, _ = ridge(first=[standardise], counts=(40, 3000), clipping_norm=1.0)
    assert 2 * 12_000 <= derived_range(plan) < 2.01 * 12_000
    rules = plan.secure_aggregation.model_copy(update={"coordinate_range": derived_range(plan)})
    plan = plan.model_copy(update={"secure_aggregation": rules})
    norm = derived_norm(plan, plan.phases[1])
    assert norm > 1
    with pytest.raises(PlanWeakPrivacyError, match=f"phase ridge: rounding .* clipping_norm to {norm:g} "):
        check_fit(plan, phase_layouts(plan), "test")
    finer = tuple(
        phase.model_copy(update={"clipping_norm": norm}) if phase.method is Method.RIDGE else phase
        for phase in plan.phases
    )
    plan = plan.model_copy(update={"phases": finer})
    check_fit(plan, phase_layouts(plan), "test")
    assert derived_range(plan) < 2.01 * 12_000
