"""The guarantee is recomputed from the plan's own numbers; a promise that the noise does not buy is refused."""

import pytest

from common.plan.errors import PlanInvalidError, PlanWeakPrivacyError
from common.plan.fitting import check_fit, lattice_step
from common.plan.guarantee import (
    check_guarantee,
    evaluation_noise_multiplier,
    evaluations,
    guarantee,
    labelled_events,
    noise_to_signal,
    seen_by,
)
from common.plan.reading import parse_plan
from common.plan.shapes_here import shapes_here
from common.plan.summary import summarise
from common.privacy.accounting import epsilon, noise_multiplier_for


def fit(document):
    plan = parse_plan(document, "plan")
    return check_fit(plan, shapes_here(plan), "plan")


def test_a_plan_written_by_our_command_buys_what_it_promises(plan_document):
    bought = check_guarantee(parse_plan(plan_document, "plan"), "plan")
    assert bought is not None
    assert 7.9 < bought.epsilon <= 8.0


def test_less_noise_than_the_promise_needs_is_refused_with_the_noise_that_would_do(plan_document):
    needed = plan_document["phases"][0]["noise_multiplier"]
    plan_document["phases"][0]["noise_multiplier"] = 0.5
    with pytest.raises(PlanWeakPrivacyError, match=f"noise_multiplier to at least {needed:.4f}"):
        check_guarantee(parse_plan(plan_document, "plan"), "plan")


def test_an_evaluation_budget_above_the_promise_is_refused(plan_document):
    plan_document["evaluation"]["epsilon"] = 9.0
    with pytest.raises(PlanWeakPrivacyError, match=r"lower evaluation\.epsilon"):
        check_guarantee(parse_plan(plan_document, "plan"), "plan")


def test_attempts_are_charged_not_rounds(plan_document):
    plan = parse_plan(plan_document, "plan")
    assert [event.steps for event in labelled_events(plan)] == [plan.phases[0].maximum_attempts]
    assert plan.phases[0].maximum_attempts > plan.phases[0].rounds


def with_unlabelled(plan_document):
    phase = plan_document["phases"][0]
    phase |= {"method": "fixmatch", "unlabelled_sampling_rate": 0.2, "unlabelled_clip_ratio": 0.1}
    return plan_document


def test_unlabelled_patients_spend_less_because_their_clip_is_smaller(plan_document):
    bought = guarantee(parse_plan(with_unlabelled(plan_document), "plan"))
    assert bought is not None
    assert 0 < bought.unlabelled < 0.2 * bought.labelled
    assert bought.epsilon == bought.labelled


def test_strata_do_not_add_up_but_phases_do(plan_document):
    second = dict(plan_document["phases"][0], name="again")
    plan = parse_plan({**plan_document, "phases": [plan_document["phases"][0], second]}, "plan")
    bought = guarantee(plan)
    assert bought is not None
    assert bought.labelled == pytest.approx(epsilon(labelled_events(plan), bought.delta))
    assert bought.labelled > 10


@pytest.mark.parametrize("held_out", [True, False])
def test_held_out_patients_are_promised_the_evaluation_epsilon_where_there_are_any(held_out, plan_document):
    plan_document["evaluation"]["held_out"] = held_out
    plan = parse_plan(plan_document, "plan")
    bought = guarantee(plan)
    assert bought is not None
    assert bought.validation == (plan.evaluation.epsilon if held_out else 0.0)


def test_evaluation_noise_covers_every_evaluation_of_the_study(plan_document):
    plan = parse_plan(plan_document, "plan")
    assert evaluations(plan) == 4  # 23 attempts, one every 10, and the closing one
    assert evaluation_noise_multiplier(plan) > 5


def test_the_tails_that_noise_lacks_are_charged_to_the_scores_too(plan_document):
    plan_document["privacy"]["delta"] = 1e-13  # so small that 1e-17 for each count and score weighs something
    plan = parse_plan(plan_document, "plan")
    asked = {"epsilon": plan.evaluation.epsilon, "sampling_rate": 1.0, "steps": evaluations(plan)}
    assert evaluation_noise_multiplier(plan) > noise_multiplier_for(delta=1e-13, **asked)


def test_a_plan_without_privacy_promises_nothing_and_says_so(plan_document):
    plan_document["privacy"] = {"noise": "none"}
    plan_document["phases"][0]["noise_multiplier"] = 0.0
    plan = parse_plan(plan_document, "plan")
    assert guarantee(plan) is None
    assert evaluation_noise_multiplier(plan) == 0
    summary = summarise(plan, None, check_fit(plan, shapes_here(plan), "plan"))
    assert any("no patient is protected" in warning for warning in summary["warnings"])


def test_a_participating_hospital_sees_more_than_an_outsider_and_the_promise_lies_between(plan_document):
    seen = seen_by(parse_plan(plan_document, "plan"))
    assert seen is not None
    assert seen.outsider < seen.guarantee == pytest.approx(seen.hospital)
    assert seen.hospital < seen.hospital_with_colluders
    plan_document["privacy"]["noise"] = "local"
    local = seen_by(parse_plan(plan_document, "plan"))
    assert local is not None
    assert local.outsider == local.hospital_with_colluders


def test_a_layout_of_another_network_is_refused(plan_document):
    plan_document["network"]["width"] = 8
    with pytest.raises(PlanInvalidError, match="layout_hash is"):
        fit(plan_document)


def test_words_too_coarse_for_the_noise_are_refused(plan_document):
    plan_document["secure_aggregation"]["coordinate_range"] = 1e5
    with pytest.raises(PlanWeakPrivacyError, match=r"lower secure_aggregation\.coordinate_range"):
        fit(plan_document)


def test_a_range_without_room_for_the_noise_is_refused_with_the_range_that_would_do(plan_document):
    plan_document["secure_aggregation"]["coordinate_range"] = 1.5
    with pytest.raises(PlanWeakPrivacyError, match=r"no room for .* raise it to \S+ or more") as refused:
        fit(plan_document)
    least = float(str(refused.value).split("raise it to ")[1].split()[0])
    plan_document["secure_aggregation"]["coordinate_range"] = 1.01 * least  # three digits are shown
    fit(plan_document)
    plan_document["secure_aggregation"]["coordinate_range"] = 1.5
    plan_document["privacy"]["noise"] = "local"
    fit(plan_document)


def test_the_lattice_step_is_a_power_of_two_that_covers_the_range(plan_document):
    # L = floor((2^31 - 1) / (4 * 2^4)) = 33554431 units must cover 64, so a unit is 2^-18
    assert lattice_step(parse_plan(plan_document, "plan")) == 2.0**-18


def test_noise_to_signal_follows_the_square_root_of_the_parameters(plan_document):
    plan = parse_plan(plan_document, "plan")
    phase = plan.phases[0]
    assert noise_to_signal(plan, phase, 400) == pytest.approx(phase.noise_multiplier * 20 / 70)
