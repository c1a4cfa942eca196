"""What each kind of observer can learn at most, as the plan page says it: every stratum, every other hospital."""

import pytest

from common.plan.errors import PlanWeakPrivacyError
from common.plan.guarantee import accounted_delta, evaluation_noise_multiplier, evaluations, guarantee, seen_by
from common.plan.reading import parse_plan
from common.privacy.accounting import SampledGaussian, epsilon, noise_multiplier_for
from common.privacy.noise_placement import NoiseShares, observer_epsilon

# minimum survivors, colluders: epsilon for the one real hospital, where the plan says 8 (q = 0.2, 200 steps)
SOLE = {(3, 1): 13.3, (10, 1): 53.0}


@pytest.mark.parametrize(("survivors", "colluders"), SOLE)
def test_a_hospital_among_the_coordinators_own_is_hidden_by_its_share_alone(survivors, colluders):
    sigma = noise_multiplier_for(epsilon=8.0, delta=1e-5, sampling_rate=0.2, steps=200)
    shares = NoiseShares(survivors, colluders)
    seen = observer_epsilon([SampledGaussian(0.2, sigma, 200)], 1e-5, shares)
    alone = epsilon([SampledGaussian(0.2, sigma / shares.honest_survivors**0.5, 200)], 1e-5)
    assert seen.all_others == pytest.approx(alone, rel=1e-4)
    assert seen.all_others == pytest.approx(SOLE[survivors, colluders], rel=0.01)
    assert seen.all_others >= seen.hospital_with_colluders >= seen.hospital >= seen.outsider


def test_the_larger_the_least_sum_the_worse_for_a_hospital_among_the_coordinators_own(plan_document):
    names = [f"site-{number}" for number in range(12)]
    plan_document["sites"] = [{"name": name, "labelled_patients": 100, "unlabelled_patients": 0} for name in names]
    rules = plan_document["secure_aggregation"]
    rules |= {"cohort_size": 12, "threshold": 7}
    seen = []
    for survivors in (3, 6, 12):
        rules["minimum_survivors"] = survivors
        seen.append(seen_by(parse_plan(plan_document, "plan")))
    assert seen[0].all_others < seen[1].all_others < seen[2].all_others
    assert seen[0].guarantee == pytest.approx(seen[1].guarantee) == pytest.approx(seen[2].guarantee)


def test_held_out_patients_are_among_those_who_are_seen(plan_document):
    """Their budget is 7, training costs 1: the figures are theirs."""
    plan_document["evaluation"] |= {"epsilon": 7.0}
    plan_document["phases"][0]["noise_multiplier"] = 8.0
    plan = parse_plan(plan_document, "plan")
    scores = [SampledGaussian(1.0, evaluation_noise_multiplier(plan), evaluations(plan))]
    seen, rules = seen_by(plan), plan.secure_aggregation
    theirs = observer_epsilon(scores, plan.privacy.delta, NoiseShares(rules.minimum_survivors, rules.assumed_colluders))
    assert guarantee(plan).labelled < 2
    assert seen.guarantee == pytest.approx(7.0, abs=0.01)
    assert seen.hospital_with_colluders == pytest.approx(theirs.hospital_with_colluders, rel=1e-6)
    plan_document["evaluation"] = {"held_out": False}
    assert seen_by(parse_plan(plan_document, "plan")).guarantee < 2


def test_each_observer_is_told_the_worst_stratum(plan_document):
    """Sampled rarely with little noise, or always with much: which is worse depends on how much is subtracted."""
    plan = parse_plan(plan_document, "plan")
    rules = plan.secure_aggregation
    shares = NoiseShares(rules.minimum_survivors, rules.assumed_colluders)
    scores = [SampledGaussian(1.0, evaluation_noise_multiplier(plan), evaluations(plan))]
    phase = plan.phases[0]
    training = [SampledGaussian(phase.labelled_sampling_rate, phase.noise_multiplier, phase.maximum_attempts)]
    each = [observer_epsilon(events, plan.privacy.delta, shares) for events in (scores, training)]
    for name, value in vars(seen_by(plan)).items():
        assert value == pytest.approx(max(getattr(one, name) for one in each), rel=1e-5), name


def test_local_noise_looks_the_same_to_everybody(plan_document):
    plan_document["privacy"]["noise"] = "local"
    assert len(set(vars(seen_by(parse_plan(plan_document, "plan"))).values())) == 1


def test_the_tails_that_noise_lacks_are_in_delta_and_a_plan_that_they_use_up_is_refused(plan_document):
    plan = parse_plan(plan_document, "plan")
    assert 0 < plan.privacy.delta - accounted_delta(plan) < 1e-10
    plan_document["privacy"]["delta"] = 2e-15
    with pytest.raises(PlanWeakPrivacyError, match=r"never exceeds 8\.57 standard deviations"):
        guarantee(parse_plan(plan_document, "plan"))
