"""A plan may have the median of groups move its model: what it must have for that, and what stays as it was."""

import pytest

from client.consent.confirmation import least_confirmed_in_study
from client.consent.policy import SitePolicyFile
from common.plan.combinations import check_combinations
from common.plan.errors import PlanInvalidError
from common.plan.guarantee import seen_by
from common.plan.reading import parse_plan

ROBUST = {"aggregation": {"robust": "median_of_groups"}}


def document(sites, *, size=3, threshold=3, survivors=3, noise="distributed"):
    return {
        "format": "fedward-plan/1",
        "study": {"name": "small", "title": "A small study", "roster_digest": "0" * 64, "order_key": "A" * 43 + "="},
        "task": {"kind": "classification", "classes": ["no", "yes"], "modalities": ["CR"], "dimensions": 2},
        "image": {"size_px": [8, 8], "intensity": "percentiles"},
        "network": {"name": "small_cnn", "width": 4},
        "privacy": {"noise": noise} | ({} if noise == "none" else {"epsilon": 8.0, "delta": 1e-5}),
        "secure_aggregation": {"cohort_size": size, "threshold": threshold, "minimum_survivors": survivors},
        "sites": [
            {"name": f"site-{number:02}", "labelled_patients": 40, "unlabelled_patients": 0} for number in range(sites)
        ],
        "phases": [
            {
                "name": "all",
                "rounds": 2,
                "maximum_attempts": 12,
                "method": "supervised",
                "trainable": "all",
                "labelled_sampling_rate": 0.1,
                "noise_multiplier": 0.0 if noise == "none" else 2.0,
                "layout_hash": "0" * 64,
            }
        ],
    }


REFUSED = {
    "eight hospitals": (document(8), "the plan lists 8 sites, groups need 9"),
    "groups below their threshold": (
        document(12, size=9, threshold=6), "12 sites do not make 3 groups of 6 .* lower it to at most 4",
    ),
    "groups below the least sum": (
        document(11, size=5, threshold=4, survivors=5), "11 sites do not make 3 groups of 5",
    ),
    "no noise": (document(9, noise="none"), "without noise a hospital opens one sum of a model only"),
    "a hospital without patients": (
        document(9) | {"sites": [
            each | ({"labelled_patients": 0, "unlabelled_patients": 9} if each["name"] == "site-04" else {})
            for each in document(9)["sites"]
        ]},
        "site-04 has no patient for phase all",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_plan_without_three_sound_groups_is_refused_with_what_would_do(case):
    wrong, sentence = REFUSED[case]
    with pytest.raises(PlanInvalidError, match=sentence):
        check_combinations(parse_plan(wrong | ROBUST, "test"), "plan")
    check_combinations(parse_plan(wrong, "test"), "plan")


@pytest.mark.parametrize(("sites", "size", "threshold"), [(9, 3, 3), (12, 4, 3), (14, 5, 4)])
def test_a_plan_with_three_groups_passes(sites, size, threshold):
    check_combinations(parse_plan(document(sites, size=size, threshold=threshold) | ROBUST, "test"), "plan")


def test_a_plan_without_groups_keeps_its_canonical_form():
    plain = parse_plan(document(9), "test")
    assert plain.canonical() == parse_plan(document(9) | {"aggregation": {"robust": "none"}}, "test").canonical()
    assert b"robust" not in plain.canonical()
    assert b"robust" in parse_plan(document(9) | ROBUST, "test").canonical()


def test_the_promise_is_that_of_one_group_as_a_cohort():
    """A patient is in one sum of a round, and that sum holds the noise of s_min - c honest hospitals of its group."""
    groups, cohort = parse_plan(document(9) | ROBUST, "test"), parse_plan(document(9), "test")
    assert seen_by(groups) == seen_by(cohort)


@pytest.mark.parametrize(("sites", "size", "threshold", "unconfirmed"), [(9, 3, 3, 0), (12, 4, 3, 0), (15, 5, 5, 2)])
def test_so_few_hospitals_may_be_unconfirmed_that_every_group_passes(sites, size, threshold, unconfirmed):
    plan = parse_plan(document(sites, size=size, threshold=threshold) | ROBUST, "test")
    policy = SitePolicyFile(format="fedward-policy/1")
    assert least_confirmed_in_study(policy, plan) == sites - unconfirmed
