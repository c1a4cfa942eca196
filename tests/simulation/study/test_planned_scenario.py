"""A plan for real hospitals is tried first: the same phases, noise and promise, on scans that nobody must protect."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.plan.task import Modality, TaskKind
from server.drafting.planning import plan_for
from server.drafting.recipes import Recipe
from simulation.drawing.made_up_encoder import made_up_encoder
from simulation.errors import ScenarioInvalidError
from simulation.study.plan_building import build_plan
from simulation.study.planned_scenario import scenario_values, write_scenario
from simulation.study.scenario_reading import parse_scenario, read_scenario
from tests.server.drafting.test_recipes import ALL_LABELLED, CHEST, FEW, LABELS, ORGAN, STUDY

ENCODER = (Path("encoder.onnx"), Path("card.toml"))


def tried(plan, *, archive=None, encoder=None):
    """The plan that the simulated hospitals are asked."""
    scenario = parse_scenario(scenario_values(plan, archive=archive, encoder=encoder), "made")
    counts = {
        name: (site.labelled_patients, site.unlabelled_patients)
        for name, site in zip(scenario.site_names, plan.sites, strict=True)
    }
    return scenario, counts


SAME = ("image", "network", "privacy", "secure_aggregation", "aggregation", "evaluation", "timing", "phases")
PLANS = {
    "ridge": (CHEST, FEW, Recipe.RIDGE),
    "a head": (CHEST, FEW, Recipe.HEAD),
    "all labelled": (CHEST, ALL_LABELLED, Recipe.HEAD),
    "organs in volumes": (ORGAN, FEW, Recipe.PRIOR_HEAD),
    "the normal class last": (
        replace(CHEST, classes=("pneumonia", "normal"), modalities=(Modality.MR,)), FEW, Recipe.RIDGE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PLANS)
def test_what_is_tried_is_the_plan_itself_but_for_names_and_keys(case):
    question, counts, recipe = PLANS[case]
    plan = plan_for(recipe, question, counts, STUDY).plan
    scenario, simulated = tried(plan)
    asked = build_plan(scenario, simulated, roster_digest=plan.study.roster_digest, order_key=plan.study.order_key)
    assert all(getattr(asked, part) == getattr(plan, part) for part in SAME)
    assert len(asked.task.classes) == len(plan.task.classes)
    assert scenario.hospitals.sites == len(plan.sites)


def test_hospitals_have_as_many_patients_together_and_labels_where_the_plan_has_them():
    counts = {"east": (0, 400), "north": (100, 300), "south": (50, 50), "west": (50, 250)}
    hospitals = tried(plan_for(Recipe.RIDGE, CHEST, counts, STUDY).plan)[0].hospitals
    assert (hospitals.patients, hospitals.unlabelled_sites) == (300, 1)
    assert hospitals.labelled_share == pytest.approx(200 / 800)


def test_an_archive_brings_the_plans_own_classes(tmp_path):
    plan = plan_for(Recipe.RIDGE, LABELS, FEW, STUDY).plan
    scenario, _ = tried(plan, archive=tmp_path / "images.npz")
    assert scenario.study.task == plan.task
    assert scenario.hospitals.limit == 900


def test_a_plan_on_a_public_encoder_is_tried_with_it(tmp_path):
    card = made_up_encoder(tmp_path, size_px=(32, 32), channels=1).card
    plan = plan_for(Recipe.RIDGE, replace(CHEST, card=card, size_px=card.size_px), FEW, STUDY).plan
    write_scenario(plan, tmp_path / "tried.toml", archive=None, encoder=ENCODER)
    scenario = read_scenario(tmp_path / "tried.toml")
    asked = build_plan(scenario, FEW, roster_digest=plan.study.roster_digest, order_key=plan.study.order_key, card=card)
    assert asked.network == plan.network
    assert scenario.encoder_paths(tmp_path / "tried.toml") == tuple(path.resolve() for path in ENCODER)
    with pytest.raises(ScenarioInvalidError, match="give --encoder and --card"):
        scenario_values(plan, archive=None, encoder=None)


NOT_DRAWN = {
    "several labels at once": (LABELS, "several labels at once cannot be drawn"),
    "ultrasound": (replace(CHEST, modalities=(Modality.US,)), "US cannot be drawn"),
    "colour": (replace(CHEST, channels=3, modalities=(Modality.OP,)), "OP cannot be drawn"),
    "six classes": (replace(CHEST, classes=("normal", "a b", "c d", "e f", "g h", "i j")), "6 classes, 4 can be drawn"),
    "three structures": (replace(ORGAN, classes=("background", "left", "right")), "3 classes, 2 can be drawn"),
}


@pytest.mark.parametrize("case", NOT_DRAWN)
def test_what_cannot_be_drawn_is_said_with_what_to_give(case):
    question, sentence = NOT_DRAWN[case]
    which = Recipe.PRIOR_HEAD if question.kind is TaskKind.SEGMENTATION else Recipe.RIDGE
    plan = plan_for(which, question, FEW, STUDY).plan
    with pytest.raises(ScenarioInvalidError, match=f"{sentence}.*--data FILE.npz"):
        scenario_values(plan, archive=None, encoder=None)
