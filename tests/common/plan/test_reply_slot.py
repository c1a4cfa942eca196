"""Reply slots of plans: long enough for the largest sample, and refused where they would tell or come too late."""

import pytest
from scipy import stats

from common.plan.errors import PlanInvalidError
from common.plan.reading import parse_plan
from common.plan.reply_slot import check_reply_slot, default_reply_slot_s, largest_sample, reply_slot_s


def plan(document, **timing):
    document["timing"] = timing
    return parse_plan(document, "plan")


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("patients", [1, 10, 300, 20_000])
def test_a_larger_sample_than_the_largest_has_a_chance_below_1e_12(patients, rate):
    most = largest_sample(patients, rate)
    assert most <= patients
    assert stats.binom.sf(most, patients, rate) < 1e-12
    assert most <= 30 + 2 * patients * rate + 60 * rate or most <= patients * rate + 12 * (patients * rate) ** 0.5 + 20


def test_nobody_is_sampled_at_rate_zero():
    assert largest_sample(100, 0.0) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"image": {"maximum_scans_per_patient": 40}},
        {"image": {"size_px": [256, 256]}},
        {"network": {"width": 160}},
    ],
    ids=str,
)
def test_the_default_grows_with_what_a_sample_costs(plan_document, change):
    usual = default_reply_slot_s(plan(plan_document))
    for section, values in change.items():
        plan_document[section] |= values
    assert default_reply_slot_s(plan(plan_document)) > usual


def test_the_plan_that_the_command_writes_has_its_default(plan_document):
    written = parse_plan(plan_document, "plan")
    assert written.timing.reply_slot_s == default_reply_slot_s(written) > 0
    check_reply_slot(written, "plan")


def test_a_private_plan_without_a_slot_is_refused_with_the_slot_that_would_do(plan_document):
    bare = plan(plan_document)
    with pytest.raises(PlanInvalidError, match=f"reply_slot_s is 0: .* write {default_reply_slot_s(bare):g}"):
        check_reply_slot(bare, "plan")
    with pytest.raises(PlanInvalidError, match="would tell"):
        check_reply_slot(plan(plan_document, reply_slot_s=0.01), "plan")


def test_a_slot_that_ends_when_nobody_waits_any_more_is_refused(plan_document):
    with pytest.raises(PlanInvalidError, match="training_timeout_s"):
        check_reply_slot(plan(plan_document, reply_slot_s=60.0, training_timeout_s=60.0), "plan")


def test_an_approved_plan_of_before_gets_the_default_within_half_of_the_waiting(plan_document):
    bare = plan(plan_document)
    assert reply_slot_s(bare) == default_reply_slot_s(bare)
    assert reply_slot_s(plan(plan_document, training_timeout_s=1.0)) == 0.5
    assert reply_slot_s(plan(plan_document, reply_slot_s=77.0)) == 77.0


def test_the_slot_of_a_ridge_phase_grows_with_the_numbers_of_its_sum(plan_document):
    plan_document["phases"][0] |= {"trainable": "head", "rounds": 1, "unlabelled_sampling_rate": 1.0}
    plan_document["phases"][0] |= {"method": "fixmatch", "teacher_decay": 1.0}
    usual = default_reply_slot_s(plan(plan_document))
    plan_document["phases"][0]["method"] = "ridge"
    assert default_reply_slot_s(plan(plan_document)) > usual
