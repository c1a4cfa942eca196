"""What follows from a person's change to a plan is computed again, and nothing else changes."""

import pytest

from common.plan.errors import PlanInvalidError
from common.plan.fitting import check_fit
from common.plan.guarantee import check_guarantee
from common.plan.shape import phase_layouts
from common.plan.task import Modality, TaskKind
from server.drafting.fixing import changes, fixed
from server.drafting.planning import plan_for
from server.drafting.recipes import Question, Recipe

STUDY = {"name": "lungs-2026", "title": "lungs", "roster_digest": "0" * 64, "order_key": "A" * 43 + "="}
COUNTS = {"east": (60, 240), "north": (60, 240), "west": (60, 240)}
CHEST = Question(TaskKind.CLASSIFICATION, ("normal", "abnormal"), (Modality.DX,), (64, 64), 8.0, 1e-6)


def changed(plan, place, **values):
    """The plan with values of one section, or of all phases, changed."""
    if place == "phases":
        return plan.model_copy(update={place: tuple(phase.model_copy(update=values) for phase in plan.phases)})
    return plan.model_copy(update={place: getattr(plan, place).model_copy(update=values)})


@pytest.fixture(scope="module", params=[Recipe.RIDGE, Recipe.HEAD], ids=str)
def plan(request):
    return plan_for(request.param, CHEST, COUNTS, STUDY).plan


def test_a_plan_in_which_nothing_changed_stays_as_it_is(plan):
    assert changes(plan, fixed(plan, "plan")) == []


CHANGES = {
    "a smaller promise": (("privacy", {"epsilon": 2.0}), {"noise_multiplier", "coordinate_range"}),
    "another class": (("task", {"classes": ("normal", "a", "b")}), {"layout_hash"}),
    "a wider network": (("network", {"width": 32, "initialisation": "seeded"}), {"layout_hash"}),
    "more attempts": (("phases", {"maximum_attempts": 60}), {"noise_multiplier"}),
}


@pytest.mark.parametrize(("change", "follows"), CHANGES.values(), ids=CHANGES)
def test_what_follows_from_a_change_is_computed_and_told(plan, change, follows):
    before = changed(plan, change[0], **change[1])
    after = fixed(before, "plan")
    told = {place.split(".")[-1] for place, _, _ in changes(before, after)}
    assert follows <= told
    assert told <= {"noise_multiplier", "layout_hash", "coordinate_range", "reply_slot_s", "clipping_norm"}
    bought = check_guarantee(after, "plan")
    assert bought is not None
    assert 0.98 * after.privacy.epsilon < bought.epsilon <= after.privacy.epsilon
    check_fit(after, phase_layouts(after), "plan")
    assert changes(after, fixed(after, "plan")) == []


def test_the_noise_of_phases_keeps_its_proportions(plan):
    after = fixed(changed(plan, "privacy", epsilon=2.0), "plan")
    ratios = [new.noise_multiplier / old.noise_multiplier for new, old in zip(after.phases, plan.phases, strict=True)]
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-3)


def test_what_no_number_mends_is_refused(plan):
    with pytest.raises(PlanInvalidError, match=r"study\.toml: .*segmentation"):
        fixed(changed(plan, "task", kind=TaskKind.SEGMENTATION), "study.toml")
