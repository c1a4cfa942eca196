"""A sum that is too long for honest hospitals is not applied; an honest one always is, however its patients agree."""

import math

import numpy as np
import pytest

from common.plan.fitting import lattice_step
from common.plan.reading import parse_plan
from common.secagg.refusals import TABLE, Check
from server.model.norm_bound import largest_norm
from server.study.events import RunState
from server.study.folder import open_study
from server.study.history import attempt_records
from server.study.progress import open_journal

LONG = {"rounds": 4, "maximum_attempts": 40}


@pytest.fixture
def make_plan(small_document):
    def make(sites, *, patients=100, rate=0.2, noise="distributed", sigma=2.0):
        document = small_document([f"site-{number}" for number in range(1, sites + 1)], noise=noise)
        for site in document["sites"]:
            site["labelled_patients"] = patients
        document["phases"] = [
            document["phases"][1] | {"labelled_sampling_rate": rate, "noise_multiplier": sigma, "maximum_attempts": 12}
        ]
        return parse_plan(document, "test")

    return make


@pytest.mark.parametrize(("sites", "size", "least"), [(4, 2_000, 60), (4, 100_000, 370), (10, 20_000, 200)])
def test_the_worst_honest_sum_passes_and_one_hospital_has_little_left(make_plan, sites, size, least):
    """Worst case: every sampled patient at the clipping norm, all in one direction, sampled as often as can be."""
    plan = make_plan(sites)
    phase, names = plan.phases[0], [site.name for site in plan.sites]
    limit = largest_norm(plan, phase, names, num_parameters=size)
    generator = np.random.default_rng(5)
    batch, honest = sites * 20, plan.secure_aggregation.honest_survivors
    noise = phase.noise_multiplier * math.sqrt(sites / honest)
    direction = generator.standard_normal(size)
    direction *= (batch + 6 * math.sqrt(batch)) / np.linalg.norm(direction)
    norms = [np.linalg.norm(generator.standard_normal(size) * noise + direction) for _ in range(60)]
    assert max(norms) < limit
    end_of_the_range = sites * 64 * math.sqrt(size)
    assert end_of_the_range / math.sqrt(limit**2 - noise**2 * size) > least


def test_without_privacy_nothing_is_clipped_so_there_is_no_bound(make_plan):
    plan = make_plan(4, noise="none", sigma=0.0)
    names = [site.name for site in plan.sites]
    assert largest_norm(plan, plan.phases[0], names, num_parameters=10**6) == math.inf


def test_fewer_hospitals_have_a_shorter_bound(make_plan):
    plan = make_plan(4)
    names = [site.name for site in plan.sites]
    whole, part = (largest_norm(plan, plan.phases[0], some, num_parameters=100) for some in (names, names[:3]))
    assert part < whole


def test_differences_of_weights_have_no_bound(make_plan):
    plan = make_plan(4, noise="local")
    assert largest_norm(plan, plan.phases[0], ["site-1"], num_parameters=10) == math.inf


def poison(federation, name, share):
    """Make a site add a vector of the same number in every coordinate: ``share`` of the bound, within the range."""
    work, honest = federation.work[name], federation.work[name].vector
    study = open_study(federation.study)
    facts = study.network.phases[0]
    length = share * largest_norm(study.plan, facts.phase, federation.names, num_parameters=facts.vector.body_length)
    step = lattice_step(study.plan)
    assert length < 8 * math.sqrt(facts.vector.body_length)

    def vector(phase, key, size):
        return honest(phase, key, size) // 1000 + round(length / math.sqrt(size) / step)

    work.vector = vector


def test_a_hospital_that_sends_more_than_its_patients_can_add_moves_nothing_and_is_found(make_federation):
    federation = make_federation(5, short=LONG, secure_aggregation={"coordinate_range": 8.0})
    poison(federation, "site-2", 1.1)
    assert federation.run().state is RunState.FINISHED
    study = open_study(federation.study)
    journal = open_journal(study)
    records = attempt_records(study, journal)
    assert {abort.code for abort in journal.aborts()} == {TABLE[Check.C_NORM].code}
    assert not any("site-2" in record.opened.participants for record in records if record.opened)
    assert [row.groups for row in journal.suspicions()] == [(("site-2",),)]


def test_what_a_hospital_may_add_is_what_the_bound_leaves(make_federation):
    federation = make_federation(
        5, short={"rounds": 1, "maximum_attempts": 9}, secure_aggregation={"coordinate_range": 8.0}
    )
    poison(federation, "site-2", 0.9)
    assert federation.run().state is RunState.FINISHED
    assert open_journal(open_study(federation.study)).aborts() == []
