"""A phase may end before its planned rounds, by noised scores and by a rule that every site has approved."""

import numpy as np
import pytest

from common.plan.errors import PlanInvalidError
from common.plan.fitting import check_fit
from common.plan.guarantee import guarantee
from common.plan.network import phase_layout, plan_network
from common.plan.reading import parse_plan
from common.plan.schedule import total_rounds
from common.plan.selection import MOST_STANDARD_ERROR, check_selection, expected_standard_error
from common.plan.shapes_here import shapes_here
from common.plan.summary import summarise
from server.attempts.study_run import ENDED_EARLY
from server.model.checkpoint import same_state
from server.model.state import start_state
from server.study.events import RunState
from server.study.folder import open_study
from server.study.history import attempt_records, scores_by_version
from server.study.progress import current_state, open_journal, replay

SITES = ("site-1", "site-2", "site-3", "site-4")
ROUNDS = 8
LONG = {"rounds": ROUNDS, "maximum_attempts": 12}


def federation_that(make_federation, scores, **rules):
    """One phase of eight rounds, scored after each; ``scores``: version -> of ten patients, how many are right."""
    federation = make_federation(
        noise="none",
        patients=4000,
        short=LONG,
        evaluation={"every_rounds": 1},
        aggregation={"stop_after_scores": 2} | rules,
    )
    prepare(federation, scores)
    return federation


def prepare(federation, scores):
    for work in federation.work.values():
        # ``SmallWork.counts`` gives 6 + version right answers of ten
        work.counts = lambda version, work=work: type(work).counts(work, scores.get(version, 6) - 6)


def rounds_of(federation):
    study = open_study(federation.study)
    journal = open_journal(study)
    records = attempt_records(study, journal)
    state = current_state(study, journal)
    assert same_state(replay(study, journal), state)
    return [record.ordered.round_number for record in records if record.applied], study, journal, state


# what the scores are, by version -> the rounds that are run; 9 is the closing one
CASES = {
    "scores that rise to the end run every round": ({v: v for v in range(11)}, {}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    "two scores in a row without a gain end the phase": ({1: 7, 2: 8, 3: 8, 4: 7}, {}, [1, 2, 3, 4, 5, 9]),
    "a gain between two falls begins to count anew": ({1: 7, 2: 6, 3: 8, 4: 7, 5: 7}, {}, [1, 2, 3, 4, 5, 6, 9]),
    "a gain below the least gain is none": ({1: 7, 2: 8, 3: 9, 4: 10}, {"least_gain": 0.2}, [1, 2, 3, 4, 9]),
    "without the rule nothing ends early": ({}, {"stop_after_scores": 0}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
}


@pytest.mark.parametrize(("scores", "rules", "expected"), CASES.values(), ids=CASES)
def test_when_a_phase_ends(make_federation, scores, rules, expected):
    federation = federation_that(make_federation, scores, **rules)
    end = federation.run()
    rounds, study, journal, state = rounds_of(federation)
    assert end.state is RunState.FINISHED
    assert rounds == expected
    assert (ENDED_EARLY in end.sentence) == (len(expected) <= ROUNDS)
    assert state.finished
    assert total_rounds(study.plan) in scores_by_version(study, journal)  # the final model is always scored


def test_the_model_of_a_phase_that_ended_early_is_the_average_of_its_rounds(make_federation):
    federation = federation_that(make_federation, {1: 8, 2: 7, 3: 7})
    federation.run()
    rounds, _, _, state = rounds_of(federation)
    assert rounds == [1, 2, 3, 4, 9]
    last = federation.work["site-1"].models[-1]
    assert last[1] == 9
    assert last[2] == state.average.tobytes() == state.parameters.tobytes()


def test_the_best_scored_model_is_the_result_also_where_its_phase_ended_early(make_federation):
    federation = federation_that(make_federation, {2: 10, 3: 7, 4: 7}, model_selection="best_noised")
    federation.run()
    rounds, _, _, state = rounds_of(federation)
    assert rounds == [1, 2, 3, 4, 5, 9]
    scored = federation.work["site-1"].models[2]  # round 3 scores version 2
    assert state.parameters.tobytes() == scored[2]


@pytest.mark.parametrize("after", [1, 3, 4, 5])
def test_a_server_that_was_stopped_anywhere_takes_the_same_decision(make_federation, after):
    scores = {1: 8, 2: 7, 3: 7}
    federation = federation_that(make_federation, scores)
    left = [after]

    def should_stop():
        left[0] -= 1
        return left[0] < 0

    first = federation.run(should_stop=should_stop)
    assert first.state in {RunState.STOPPED, RunState.FINISHED}
    federation.start_sites()
    prepare(federation, scores)
    assert federation.run().state is RunState.FINISHED
    assert rounds_of(federation)[0] == [1, 2, 3, 4, 9]


def test_a_phase_that_ends_early_hands_over_to_the_next_and_its_count_begins_anew(make_federation, small_document):
    federation = make_federation(document=two_phases(small_document))
    prepare(federation, {1: 9, 2: 8, 3: 8, 6: 6, 7: 7, 8: 8, 9: 9})
    federation.run()
    study = open_study(federation.study)
    journal = open_journal(study)
    ordered = [(row.phase, row.round_number) for row in journal.attempts()]
    # Phase 0 ends after round 4 of 6; the next phase starts with version 6 and improves with every score.
    assert ordered == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]
    assert same_state(replay(study, journal), current_state(study, journal))


def two_phases(small_document):
    document = small_document(SITES, noise="none")
    for site in document["sites"]:
        site["labelled_patients"] = 4000
    for phase, rounds in zip(document["phases"], (6, 4), strict=True):
        phase |= {"rounds": rounds, "maximum_attempts": 12}
    document["evaluation"]["every_rounds"] = 1
    document["aggregation"] |= {"stop_after_scores": 2}
    return document


def planned(small_document, *, patients=40, **rules):
    document = small_document(SITES, noise="distributed")
    for site in document["sites"]:
        site["labelled_patients"] = patients
    document["privacy"]["delta"] = 1e-6
    document["aggregation"] |= rules
    document["secure_aggregation"]["coordinate_range"] = 16.0
    network = plan_network(parse_plan(document, "test"))
    for phase, draft in zip(document["phases"], parse_plan(document, "test").phases, strict=True):
        phase["layout_hash"] = phase_layout(network, draft).digest
    return parse_plan(document, "test")


REFUSED = {
    "stopping by scores": ({"stop_after_scores": 3}, "stop_after_scores is 3, but .* set 0"),
    "choosing by scores": ({"model_selection": "best_noised"}, "best_noised, but .* use last_average"),
}


@pytest.mark.parametrize(("rules", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_plan_whose_scores_would_say_nothing_may_not_heed_them(small_document, rules, sentence):
    few = planned(small_document, **rules)
    with pytest.raises(PlanInvalidError, match=sentence):
        check_selection(few, "study.toml")
    assert check_selection(planned(small_document, patients=20_000, **rules), "study.toml") <= MOST_STANDARD_ERROR


def test_nobody_held_out_is_named_as_the_reason(small_document):
    plan = planned(small_document, stop_after_scores=1)
    blind = plan.model_copy(update={"evaluation": plan.evaluation.model_copy(update={"held_out": False})})
    with pytest.raises(PlanInvalidError, match="nobody is held out"):
        check_selection(blind, "study.toml")


def test_the_rule_is_part_of_what_is_signed_and_of_what_a_person_reads(small_document):
    plain, stopping = planned(small_document), planned(small_document, stop_after_scores=3, least_gain=0.01)
    assert plain.digest() != stopping.digest()
    shown = summarise(stopping, None, check_fit(stopping, shapes_here(stopping), "test"))["result"]
    assert "3 noised scores in a row" in shown["a_phase_ends"]
    assert "0.01" in shown["a_phase_ends"]
    assert shown["standard_error_of_a_score"] == expected_standard_error(stopping)
    assert shown["scores_may_decide"] is False
    assert (
        "earlier" not in summarise(plain, None, check_fit(plain, shapes_here(plain), "test"))["result"]["a_phase_ends"]
    )


def test_the_rule_buys_and_costs_nothing(small_document):
    plain, stopping = planned(small_document), planned(small_document, stop_after_scores=3)
    assert guarantee(stopping) == guarantee(plain)


def test_counts_of_nobody_say_neither_gain_nor_loss(make_federation):
    federation = federation_that(make_federation, {})
    for work in federation.work.values():
        work.counts = lambda _version, work=work: np.zeros_like(type(work).counts(work, 0))
    federation.run()
    rounds, study, _, state = rounds_of(federation)
    assert rounds == list(range(1, ROUNDS + 2))
    assert state.scores_without_gain == start_state(study.network).scores_without_gain == 0
