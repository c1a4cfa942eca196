"""A plan that cannot work has a red light, and is not signed by accident."""

import math
from dataclasses import replace

import pytest

from common.plan.fitting import check_fit
from common.plan.guarantee import noise_to_signal
from common.plan.lights import Colour, lights, red
from common.plan.machines import STATED, need_of
from common.plan.plan import StudyPlan
from common.plan.shape import phase_layouts
from server.drafting.planning import plan_for
from server.drafting.recipes import Recipe
from tests.server.drafting.test_recipes import CHEST, FEW, STUDY

HANDFUL = {"east": (6, 9), "north": (6, 9), "west": (6, 9)}


def looked_at(plan: StudyPlan) -> dict[str, Colour]:
    return {light.what: light.colour for light in lights(plan, check_fit(plan, phase_layouts(plan), "plan"))}


def recipe(question, counts, which=Recipe.RIDGE) -> StudyPlan:
    return plan_for(which, question, counts, STUDY).plan


def test_a_recipe_for_enough_patients_is_green():
    assert set(looked_at(recipe(CHEST, FEW)).values()) == {Colour.GREEN}


@pytest.mark.parametrize(("epsilon", "colour"), [(8.0, Colour.YELLOW), (1.0, Colour.RED)])
def test_the_same_recipe_for_a_handful_of_patients_says_what_noise_costs(epsilon, colour):
    plan = recipe(replace(CHEST, epsilon=epsilon), HANDFUL)
    assert looked_at(plan)["phase ridge"] is colour


def test_rounds_average_noise_away_and_what_they_cost_is_in_the_noise():
    plan = recipe(CHEST, FEW, Recipe.HEAD)
    (head,) = (phase for phase in plan.phases if phase.name == "head")
    fits = check_fit(plan, phase_layouts(plan), "plan")
    (light,) = (light for light in lights(plan, fits) if light.what == "phase head")
    ratio = noise_to_signal(plan, head, fits[-1].num_parameters) / math.sqrt(head.rounds)
    assert light.figure.startswith(f"noise is {ratio:.2f} times the signal")


def test_without_noise_there_is_no_light_of_learning(plan_document):
    plan_document["privacy"] = {"noise": "none"}
    plan_document["phases"] = [each | {"noise_multiplier": 0.0} for each in plan_document["phases"]]
    assert not any(
        what.startswith("phase") for what in looked_at(StudyPlan.model_validate(plan_document, strict=False))
    )


def test_a_whole_network_from_drawn_weights_is_red_where_a_head_would_be_yellow(plan_document):
    """The plan that once was signed without a word, and led to AUC .635."""
    plan_document["sites"] = [each | {"labelled_patients": 60} for each in plan_document["sites"]]
    plan = StudyPlan.model_validate(plan_document, strict=False)
    assert looked_at(plan)["phase supervised"] is Colour.RED


SCORES = [(20_000, Colour.GREEN), (3000, Colour.YELLOW), (100, Colour.RED)]


@pytest.mark.parametrize(("labelled", "colour"), SCORES)
def test_a_score_that_says_nothing_is_red(labelled, colour, plan_document):
    plan_document["sites"] = [each | {"labelled_patients": labelled} for each in plan_document["sites"]]
    plan = StudyPlan.model_validate(plan_document, strict=False)
    assert looked_at(plan)["score"] is colour


MACHINES = [(2.0, 2.0, Colour.GREEN), (0.5, 2.0, Colour.YELLOW), (0.5, 0.5, Colour.RED)]


@pytest.mark.parametrize(("smaller", "larger", "colour"), MACHINES)
def test_what_fits_no_machine_is_red_and_what_fits_the_larger_one_yellow(smaller, larger, colour, monkeypatch):
    plan = recipe(CHEST, FEW)
    need = need_of(plan).least_bytes
    machines = [replace(each, memory_bytes=times * need) for each, times in zip(STATED, (smaller, larger), strict=True)]
    monkeypatch.setattr("common.plan.machines.STATED", machines)
    assert looked_at(plan)["memory"] is colour


def test_a_red_light_is_a_sentence_with_figure_and_remedy():
    values = [
        {"what": "phase a", "colour": "red", "figure": "f", "meaning": "m"},
        {"what": "b", "colour": "green", "figure": "", "meaning": ""},
    ]
    assert red(values) == ["phase a: f; m"]
