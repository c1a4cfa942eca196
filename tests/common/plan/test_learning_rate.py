"""The learning rate of a phase rises and falls as the plan says, and the server's step follows it."""

import numpy as np
import pytest

from common.plan.errors import PlanInvalidError
from common.plan.learning_rate import share_of_learning_rate
from common.plan.phases import Phase
from common.plan.reading import parse_plan
from server.model.optimiser import new_optimiser_state
from server.model.phase_step import phase_step

PHASE = {
    "name": "only", "maximum_attempts": 99, "layout_hash": "0" * 64, "labelled_sampling_rate": 1.0,
    "noise_multiplier": 1.0,
}  # fmt: skip

SCHEDULES = {
    "constant": ({"rounds": 3}, [1, 1, 1]),
    "warm-up": ({"rounds": 5, "warm_up_rounds": 3}, [0.25, 0.5, 0.75, 1, 1]),
    "cosine": ({"rounds": 4, "schedule": "cosine"}, [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
    "both": ({"rounds": 3, "warm_up_rounds": 1, "schedule": "cosine"}, [0.5, 1, 0.5]),
}


@pytest.mark.parametrize(("keys", "shares"), SCHEDULES.values(), ids=SCHEDULES)
def test_the_learning_rate_goes_as_planned(keys, shares):
    phase = Phase(**PHASE, **keys)
    found = [share_of_learning_rate(phase, number) for number in range(1, phase.rounds + 1)]
    assert found == pytest.approx(shares, abs=1e-9)


@pytest.mark.parametrize("rule", ["mean", "momentum", "adam", "yogi"])
def test_the_server_s_first_step_is_as_long_as_the_warm_up_says(rule, plan_document):
    plan_document["aggregation"] = {"rule": rule, "learning_rate": 0.5}
    weights, direction = np.zeros(4, np.float32), np.ones(4, np.float32)

    def moved(**keys):
        plan_document["phases"][0] |= {"rounds": 9, "maximum_attempts": 10} | keys
        plan = parse_plan(plan_document, "plan")
        return phase_step(plan, plan.phases[0], new_optimiser_state(), weights, direction)[1][:]

    assert moved(warm_up_rounds=3) == pytest.approx(0.25 * moved(warm_up_rounds=0), rel=1e-6)


REFUSED = {
    "nothing but warm-up": ({"rounds": 3, "warm_up_rounds": 3}, "would never be reached"),
    "no room to fall": ({"rounds": 3, "warm_up_rounds": 2, "schedule": "cosine"}, "needs two rounds"),
}


@pytest.mark.parametrize(("keys", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_schedule_without_rounds_is_refused(keys, sentence, plan_document):
    plan_document["phases"][0] |= keys
    with pytest.raises(PlanInvalidError, match=sentence):
        parse_plan(plan_document, "plan")
