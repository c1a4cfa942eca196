"""A coordinator's question and counts make a whole plan that every check passes."""

import tomllib
from dataclasses import replace

import pytest

from common.encoders.card import read_card
from common.errors import FedwardError
from common.plan.combinations import check_combinations
from common.plan.errors import PlanInvalidError
from common.plan.fitting import check_fit
from common.plan.guarantee import check_guarantee
from common.plan.head_steps import steps_for
from common.plan.reading import parse_plan
from common.plan.selection import expected_standard_error
from common.plan.settings_read import check_settings_are_read
from common.plan.shape import phase_layouts
from common.plan.summary import warnings
from common.plan.task import Modality, TaskKind
from server.drafting.plan_text import plan_toml
from server.drafting.planning import plan_for
from server.drafting.recipes import Question, Recipe
from server.study.new_plan import COMMENTS

STUDY = {"name": "lungs-2026", "title": "lungs", "roster_digest": "0" * 64, "order_key": "A" * 43 + "="}
FEW = {"east": (60, 240), "north": (60, 240), "west": (60, 240)}
MANY = {"east": (2000, 20_000), "north": (2000, 0), "south": (100, 5000), "west": (0, 9000)}
ALL_LABELLED = dict.fromkeys(("east", "north", "west"), (300, 0))
CHEST = Question(TaskKind.CLASSIFICATION, ("normal", "abnormal"), (Modality.CR, Modality.DX), (64, 64), 8.0, 1e-6)
ORGAN = replace(
    CHEST,
    kind=TaskKind.SEGMENTATION,
    classes=("background", "organ"),
    modalities=(Modality.CT,),
    size_px=(24, 32, 32),
    spacing_mm=(3.0, 2.0, 2.0),
    window_hu=(40.0, 400.0),
)
LABELS = replace(CHEST, kind=TaskKind.MULTI_LABEL, classes=("normal", "nodule", "effusion"))

CASES = {
    "few labels, unlabelled patients": (CHEST, FEW, Recipe.RIDGE, ["standardise", "ridge"]),
    "many": (CHEST, MANY, Recipe.RIDGE, ["standardise", "ridge"]),
    "nobody is unlabelled": (CHEST, ALL_LABELLED, Recipe.HEAD, ["standardise", "head"]),
    "several labels at once": (LABELS, FEW, Recipe.RIDGE, ["standardise", "ridge"]),
    "colour": (replace(CHEST, channels=3, modalities=(Modality.OP,)), FEW, Recipe.RIDGE, ["standardise", "ridge"]),
    "a volume, many labels, so that a score is made": (
        ORGAN, dict.fromkeys(("east", "north", "west"), (2000, 0)), Recipe.PRIOR_HEAD, ["prior", "standardise", "head"],
    ),
    "ten hospitals": (
        ORGAN, {f"site-{number}": (50, 10) for number in range(10)}, Recipe.PRIOR_HEAD,
        ["prior", "standardise", "head"],
    ),
    "a volume": (ORGAN, FEW, Recipe.PRIOR_HEAD, ["prior", "standardise", "head"]),
    "classes of volumes": (
        replace(CHEST, modalities=(Modality.MR,), size_px=(16, 32, 32), spacing_mm=(3.0, 2.0, 2.0)),
        FEW, Recipe.RIDGE, ["standardise", "ridge"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("question", "counts", "recipe", "phases"), CASES.values(), ids=CASES)
def test_the_recipe_of_a_study_is_a_plan_that_keeps_its_promise_and_reads_back(question, counts, recipe, phases):
    planned = plan_for(Recipe.AUTO, question, counts, STUDY)
    plan = planned.plan
    assert (planned.recipe, [phase.name for phase in plan.phases]) == (recipe, phases)
    check_combinations(plan, "plan")
    check_settings_are_read(plan, "plan")
    check_fit(plan, phase_layouts(plan), "plan")
    bought = check_guarantee(plan, "plan")
    assert bought is not None
    assert 0.97 * question.epsilon < bought.epsilon <= question.epsilon
    assert all(phase.maximum_attempts > phase.rounds for phase in plan.phases), "one lost round would end the study"
    text = plan_toml(plan, COMMENTS)
    assert parse_plan(tomllib.loads(text), "plan") == plan
    assert "# promised to each patient" in text


def test_a_head_has_the_rounds_that_public_numbers_say():
    plan = plan_for(Recipe.HEAD, replace(CHEST, epsilon=1.0), FEW, STUDY).plan
    assert plan.phases[1].rounds == steps_for(plan, plan.phases[1]) < 20
    assert plan.phases[0].labelled_sampling_rate == 0.0


def test_a_score_is_made_only_where_it_says_something():
    few, many = (plan_for(Recipe.AUTO, CHEST, counts, STUDY) for counts in (FEW, MANY))
    assert few.standard_error is None
    assert not few.plan.evaluation.held_out
    assert many.standard_error is not None
    assert many.standard_error == pytest.approx(expected_standard_error(many.plan))
    assert many.standard_error <= 0.05


@pytest.mark.parametrize("counts", [FEW, MANY], ids=["few", "many"])
def test_a_study_on_a_public_encoder_names_its_card(made_up_card, counts):
    question = replace(CHEST, size_px=made_up_card.size_px, card=made_up_card)
    plan = plan_for(Recipe.AUTO, question, counts, STUDY).plan
    assert plan.network.encoder is not None
    assert plan.network.encoder.card == made_up_card.digest()
    assert plan.phases[1].method == "ridge"


ORDERS = {
    "normal first": (("normal", "nodule"), 0, ""),
    "normal last": (("glioma", "no tumour"), 1, "no tumour"),
    "none sounds normal": (("mild", "severe"), 0, ""),
}


@pytest.mark.parametrize(("classes", "index", "said"), ORDERS.values(), ids=ORDERS)
def test_the_normal_class_is_named_where_it_is_not_the_first(classes, index, said):
    plan = plan_for(Recipe.AUTO, replace(CHEST, classes=classes), FEW, STUDY).plan
    assert (plan.task.normal_index, plan.task.normal_class, plan.task.misplaced_normal) == (index, said, None)
    wrong = plan.model_copy(update={"task": plan.task.model_copy(update={"normal_class": ""})})
    warned = any("set task.normal_class" in warning for warning in warnings(wrong))
    assert warned == bool(said)


WRONG = {
    "a recipe of another task": (Recipe.PRIOR_HEAD, CHEST, FEW, "choose ridge or head, or auto"),
    "a segmentation by ridge": (Recipe.RIDGE, ORGAN, FEW, "choose prior-head, or auto"),
    "nobody has a label": (Recipe.AUTO, CHEST, {"east": (0, 9), "north": (0, 9), "west": (0, 9)}, "no hospital has a"),
    "a ridge without unlabelled patients": (Recipe.RIDGE, CHEST, ALL_LABELLED, "needs unlabelled patients"),
    "a background that is not the first": (
        Recipe.AUTO,
        replace(ORGAN, classes=("organ", "background")),
        FEW,
        "put 'background' first",
    ),
    "one class": (Recipe.AUTO, replace(CHEST, classes=("normal",)), FEW, "task.classes"),
    "the same class twice": (Recipe.AUTO, replace(CHEST, classes=("a", "a")), FEW, "an entry twice"),
    "a volume without spacing": (Recipe.AUTO, replace(ORGAN, spacing_mm=()), FEW, "spacing_mm"),
    "a window for what is no CT": (Recipe.AUTO, replace(CHEST, window_hu=(40.0, 400.0)), FEW, "ct_window"),
    "a side that no image has": (Recipe.AUTO, replace(CHEST, size_px=(4, 4)), FEW, "image.size_px"),
}


@pytest.mark.parametrize(("recipe", "question", "counts", "sentence"), WRONG.values(), ids=WRONG)
def test_what_makes_no_plan_is_refused_in_a_sentence(recipe, question, counts, sentence):
    with pytest.raises(FedwardError, match=sentence) as refused:
        plan_for(recipe, question, counts, STUDY)
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, PlanInvalidError)


@pytest.fixture(scope="module")
def made_up_card(tmp_path_factory):
    from simulation.drawing.made_up_encoder import made_up_encoder  # noqa: PLC0415 (onnx)

    made = made_up_encoder(tmp_path_factory.mktemp("encoder"), size_px=(32, 32), channels=1)
    return read_card(made.card_file)
