"""Each phase of a study leaves through its own mechanism: the phase's noise, and no more than the plan's words hold."""

import numpy as np
import pytest

from client.learning.assignment import Assignment
from client.learning.patient_counts import PatientCounts
from client.learning.release import StudyRelease
from common.plan.fitting import lattice_limit, lattice_step
from common.plan.guarantee import evaluation_noise_multiplier
from common.plan.reading import parse_plan
from common.plan.schedule import count_layout
from common.plan.shape import phase_layouts

NOT_EVALUATED = Assignment(0, 1, evaluated=False, scored=False)
CROWD = PatientCounts(labelled=10**9, unlabelled=10**9)


class Training:
    """Hands back the same sum for every coordinate; fails where there is none."""

    def __init__(self, counts, length, value):
        self._counts, self._length, self._value = counts, length, value

    def begin(self, assignment, model):
        if self._value is None:
            raise MemoryError
        return np.zeros(self._counts, np.int64), np.full(self._length, self._value, np.int32)


@pytest.fixture
def plan(plan_document):
    first = plan_document["phases"][0] | {"noise_multiplier": 4.0}
    plan_document["phases"] = [first, first | {"name": "again", "noise_multiplier": 12.0}]
    plan_document["secure_aggregation"]["coordinate_range"] = 256.0
    return parse_plan(plan_document, "plan")


def left(plan, index, value):
    """What leaves a site in a phase whose training hands back ``value`` everywhere."""
    layouts = phase_layouts(plan)
    multiplier = evaluation_noise_multiplier(plan)
    release = StudyRelease(plan, layouts, CROWD, site_id="north", counts_multiplier=multiplier)
    training = Training(count_layout(plan).length, layouts[index].num_parameters, value)
    _, body = release.round_of(index).run(training, NOT_EVALUATED, memoryview(b""))
    return body.astype(np.float64)


@pytest.mark.parametrize("index", [0, 1])
def test_a_training_that_fails_leaves_the_noise_of_its_own_phase(index, plan):
    phase = plan.phases[index]
    honest = plan.secure_aggregation.honest_survivors
    stddev = phase.noise_multiplier * phase.clipping_norm / np.sqrt(honest) / lattice_step(plan)
    assert left(plan, index, None).std() == pytest.approx(stddev, rel=0.03)


@pytest.mark.parametrize("value", [np.iinfo(np.int32).max, np.iinfo(np.int32).min])
def test_no_sum_leaves_larger_than_the_plan_s_words_hold(value, plan):
    for index in range(2):
        assert np.abs(left(plan, index, value)).max() <= lattice_limit(plan)
