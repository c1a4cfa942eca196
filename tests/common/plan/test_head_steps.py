"""How many steps a private head is worth, from public numbers; ``plan check`` says where a plan is far from it."""

import math

import pytest

from common.plan.head_steps import MOST_STEPS, head_steps, steps_for
from common.plan.reading import parse_plan
from common.plan.shape import phase_layouts
from common.plan.summary import warnings
from common.privacy.accounting import noise_multiplier_for

HEAD = {"trainable": "head", "labelled_sampling_rate": 1.0}


def worth(labelled, epsilon, features=112, classes=2):
    once = noise_multiplier_for(epsilon=epsilon, delta=1e-5, sampling_rate=1.0, steps=1)
    return head_steps(labelled=labelled, noise_multiplier=once, features=features, classes=classes)


def test_tight_budgets_take_few_steps_and_generous_ones_many():
    by_budget = [worth(47, epsilon) for epsilon in (0.5, 1.0, 2.0, 8.0)]
    assert by_budget == sorted(by_budget)
    assert worth(47, 1.0) <= 2
    assert worth(47, 8.0) >= 8
    assert worth(470, 8.0) == MOST_STEPS
    assert worth(47, 2.0, features=816) < worth(47, 2.0)
    assert worth(200, 2.0, classes=6) < worth(200, 2.0)


def test_without_noise_or_patients_the_number_stays_within_its_bounds():
    assert head_steps(labelled=10, noise_multiplier=0.0, features=112, classes=2) == MOST_STEPS
    assert head_steps(labelled=0, noise_multiplier=5.0, features=816, classes=4) == 1
    assert head_steps(labelled=math.inf, noise_multiplier=5.0, features=816, classes=4) == MOST_STEPS


def with_head(document, *, rounds, **phase):
    document["phases"][0] |= HEAD | {"rounds": rounds, "maximum_attempts": rounds + 1, "noise_multiplier": 9.0} | phase
    for site in document["sites"]:
        site["labelled_patients"] = 12
    document["privacy"] |= {"epsilon": 1.0, "delta": 1e-6}
    draft = parse_plan(document, "plan")
    document["phases"][0]["layout_hash"] = phase_layouts(draft)[0].layout_hash
    return parse_plan(document, "plan")


@pytest.mark.parametrize(("rounds", "is_said"), [(40, True), (2, False), (1, False)])
def test_plan_check_warns_of_rounds_that_cost_more_than_they_teach(rounds, is_said, plan_document):
    plan = with_head(plan_document, rounds=rounds)
    said = [each for each in warnings(plan) if "is worth about" in each]
    assert bool(said) == is_said


OTHERS = {
    "the whole network": {"trainable": "all"},
    "another method": {"method": "fixmatch", "unlabelled_sampling_rate": 1.0},
}


@pytest.mark.parametrize("case", OTHERS)
def test_the_rule_says_nothing_of(case, plan_document):
    plan = with_head(plan_document, rounds=40, **OTHERS[case])
    assert steps_for(plan, plan.phases[0]) is None
