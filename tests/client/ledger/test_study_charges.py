"""What one attempt of a plan is charged to each stratum, recomputed here from the plan's text by other means."""

import pytest

from client.ledger.budget import Stratum
from client.ledger.errors import PromiseSpentError
from client.ledger.ledger import Ledger
from client.ledger.study_charges import StudyCharges, planned_events
from client.ledger.terms import LogMark, StudyTerms, promised
from common.plan.guarantee import evaluation_noise_multiplier, evaluations
from common.plan.reading import parse_plan
from common.privacy.accounting import epsilon

LABELLED, UNLABELLED, VALIDATION = Stratum.LABELLED, Stratum.UNLABELLED, Stratum.VALIDATION

# what changes in the phase -> (rate, noise over the stratum's own clip, steps) by stratum
CASES = {
    "labels only": ({"labelled_sampling_rate": 0.25}, {LABELLED: (0.25, 4.0, 1)}),
    "both strata, each with its own rate and clip": (
        {"method": "fixmatch", "unlabelled_sampling_rate": 0.125, "unlabelled_clip_ratio": 0.5},
        {LABELLED: (0.5, 4.0, 1), UNLABELLED: (0.125, 8.0, 1)},
    ),
    "unlabelled patients with the labelled ones' clip": (
        {"method": "fixmatch", "unlabelled_sampling_rate": 0.75, "unlabelled_clip_ratio": 1.0},
        {LABELLED: (0.5, 4.0, 1), UNLABELLED: (0.75, 4.0, 1)},
    ),
    "unlabelled patients alone": (
        {
            "method": "teacher_student",
            "labelled_sampling_rate": 0.0,
            "unlabelled_sampling_rate": 1.0,
            "unlabelled_clip_ratio": 0.1,
        },
        {UNLABELLED: (1.0, 40.0, 1)},
    ),
}


def plan_with(document, **phase):
    document["phases"][0] |= {"noise_multiplier": 4.0, "labelled_sampling_rate": 0.5} | phase
    document["privacy"]["epsilon"] = 50.0
    return parse_plan(document, "plan")


@pytest.fixture
def ledger(tmp_path):
    Ledger.create(tmp_path / "ledger.sqlite").close()
    with Ledger.open(tmp_path / "ledger.sqlite", ceiling=100.0) as opened:
        yield opened


def spent(ledger):
    """What the ledger holds, by stratum: (rate, noise, steps) of every event."""
    [study] = ledger.spending()
    return {
        stratum: [(event.sampling_rate, event.noise_multiplier, event.steps) for event in events]
        for stratum, events in study.events.items()
    }


@pytest.mark.parametrize("case", CASES)
def test_an_attempt_charges_every_stratum_that_takes_part_and_no_other(plan_document, ledger, case):
    changes, expected = CASES[case]
    plan = plan_with(plan_document, **changes)
    charges = StudyCharges(plan, ledger)
    charges.spend(charges.reserve(plan.phases[0], 1, scored=False))
    assert spent(ledger) == {stratum: [pytest.approx(event)] for stratum, event in expected.items()}


@pytest.mark.parametrize("case", CASES)
def test_an_attempt_that_is_scored_charges_the_held_out_patients_too(plan_document, ledger, case):
    changes, expected = CASES[case]
    plan = plan_with(plan_document, **changes)
    charges = StudyCharges(plan, ledger)
    charges.spend(charges.reserve(plan.phases[0], 1, scored=True))
    validation = (1.0, evaluation_noise_multiplier(plan), 1)
    assert spent(ledger) == {
        stratum: [pytest.approx(event)] for stratum, event in {**expected, VALIDATION: validation}.items()
    }


def test_every_local_step_is_charged(plan_document, ledger):
    plan_document["privacy"]["noise"] = "local"
    both = {"method": "fixmatch", "unlabelled_sampling_rate": 0.25, "unlabelled_clip_ratio": 0.5}
    plan = plan_with(plan_document, local_steps=3, **both)
    StudyCharges(plan, ledger).reserve(plan.phases[0], 1, scored=False)
    assert spent(ledger) == {LABELLED: [(0.5, 4.0, 3)], UNLABELLED: [(0.25, 8.0, 3)]}


def test_as_many_scores_as_the_plan_has_cost_its_evaluation_epsilon(plan_document, ledger):
    plan = plan_with(plan_document)
    charges = StudyCharges(plan, ledger)
    for attempt in range(1, evaluations(plan) + 1):
        assert charges.may_score(closing=True)
        charges.reserve(plan.phases[0], attempt, scored=True)
    assert not charges.may_score(closing=True)
    [study] = ledger.spending()
    assert 0.99 * plan.evaluation.epsilon < study.epsilon(VALIDATION) <= plan.evaluation.epsilon
    assert epsilon([*study.events[VALIDATION], study.events[VALIDATION][0]], study.delta) > plan.evaluation.epsilon


def test_the_last_score_is_the_closing_rounds(plan_document, ledger):
    plan = plan_with(plan_document)
    charges = StudyCharges(plan, ledger)
    for attempt in range(1, evaluations(plan)):
        assert charges.may_score(closing=False)
        charges.reserve(plan.phases[0], attempt, scored=True)
    assert not charges.may_score(closing=False)
    assert charges.may_score(closing=True)


def test_a_score_that_was_given_back_may_be_made_again_and_one_cut_off_by_a_crash_may_not(plan_document, ledger):
    plan = plan_with(plan_document)
    charges = StudyCharges(plan, ledger)
    for attempt in range(1, evaluations(plan) + 1):
        reservation = charges.reserve(plan.phases[0], attempt, scored=True)  # never spent: a crash came before
    assert not charges.may_score(closing=True)
    charges.void(reservation)
    assert charges.may_score(closing=True)


def test_scores_of_another_study_take_none_away(plan_document, ledger):
    plan = plan_with(plan_document)
    plan_document["study"]["name"] = "another"
    other = plan_with(plan_document)
    for attempt in range(1, evaluations(plan) + 1):
        StudyCharges(plan, ledger).reserve(plan.phases[0], attempt, scored=True)
    assert not StudyCharges(plan, ledger).may_score(closing=True)
    assert StudyCharges(other, ledger).may_score(closing=False)


def test_a_round_that_reads_nobody_to_learn_from_charges_scores_alone(plan_document, ledger):
    both = {"method": "fixmatch", "unlabelled_sampling_rate": 0.25, "unlabelled_clip_ratio": 0.5}
    plan = plan_with(plan_document, **both)
    charges = StudyCharges(plan, ledger)
    assert charges.reserve(plan.phases[0], 1, scored=False, trained=False) is None
    assert ledger.spending() == []
    charges.spend(charges.reserve(plan.phases[0], 2, scored=True, trained=False))
    assert set(spent(ledger)) == {VALIDATION}


def test_a_second_release_of_ridge_is_refused_and_its_closing_round_is_not(plan_document, ledger):
    ridge = {"method": "ridge", "trainable": "head", "rounds": 1, "maximum_attempts": 2, "unlabelled_clip_ratio": 0.5}
    plan = plan_with(plan_document, unlabelled_sampling_rate=1.0, **ridge)
    promise = promised(planned_events(plan))
    charges = StudyCharges(plan, ledger, lambda: StudyTerms(promise, bytes(32), LogMark(0, "0" * 64)))
    charges.spend(charges.reserve(plan.phases[0], 1, scored=False))
    with pytest.raises(PromiseSpentError):
        charges.reserve(plan.phases[0], 2, scored=False)
    assert charges.reserve(plan.phases[0], 2, scored=True, trained=False) is not None


def test_a_plan_without_a_promise_is_not_charged_and_may_always_score(plan_document, ledger):
    plan_document["privacy"] = {"noise": "none"}
    plan = parse_plan(plan_document | {"phases": [plan_document["phases"][0] | {"noise_multiplier": 0.0}]}, "plan")
    charges = StudyCharges(plan, ledger)
    assert charges.reserve(plan.phases[0], 1, scored=True) is None
    assert charges.may_score(closing=False)
    assert ledger.spending() == []
