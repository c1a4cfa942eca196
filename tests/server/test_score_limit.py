"""Beyond the planned scores sites send noise in their place, unseen: the server reads none of it as a score."""

import math
from dataclasses import replace

import numpy as np
import pytest

from client.secagg.journal import SiteJournal
from client.secagg.session import SiteSession
from common.plan.guarantee import evaluations, may_score
from server.attempts.retries import RetryRules, RunSettings
from server.model.checkpoint import same_state
from server.study.events import LoggedEvents, RunState
from server.study.folder import open_study
from server.study.history import attempt_records, scores_by_version
from server.study.journal_rows import AttemptRow
from server.study.progress import current_state, open_journal, replay
from server.study.score_limit import asked_attempts, scored_attempts
from server.study.status import study_status
from simulation.runtime.faults import Fault, Trouble

CLOSING = 5  # of four rounds; versions 2 and 4 are scored, by rounds 3 and 5
SHORT = {
    "rounds": 4,
    "maximum_attempts": 6,
}  # so ceil(6 / 2) + 1 = 4 scores are planned, the last for the closing round


@pytest.fixture
def plan(make_federation):
    return open_study(make_federation(short=SHORT).study).plan


def rows(numbers):
    return [AttemptRow(at, 0, number, ("a", "b"), bytes(32), 0.0) for at, number in enumerate(numbers, 1)]


# rounds that were ordered, in order -> the attempts whose counts may be read
ORDERED = {
    "as planned": ([1, 2, 3, 4, 5], {3, 5}),
    "retries that fit": ([1, 2, 3, 3, 3, 4, 5], {3, 4, 5, 7}),
    "a scored round again and again": ([3, 3, 3, 3, 3, 4, 5], {1, 2, 3}),
    "the last score is kept for the closing round": ([3, 3, 3, 5, 5], {1, 2, 3, 4}),
    "the closing round again and again": ([5] * 6, {1, 2, 3, 4}),
    "nothing ordered": ([], set()),
}


@pytest.mark.parametrize(("numbers", "expected"), ORDERED.values(), ids=ORDERED)
def test_which_attempts_carry_scores(plan, numbers, expected):
    assert evaluations(plan) == 4
    assert scored_attempts(plan, rows(numbers)) == expected


@pytest.mark.parametrize("seed", range(20))
def test_whatever_attempts_a_site_was_charged_for_it_scored_each_that_the_server_reads(plan, seed):
    """A site may miss attempts, and may get charges back: what it counts is never more than what the server does."""
    random = np.random.default_rng(seed)
    numbers = random.choice([1, 2, 3, 4, 5], 14).tolist()
    charged, scored = 0, set()
    for attempt, number in enumerate(numbers, 1):
        if number not in {3, CLOSING}:
            continue
        if may_score(plan, charged, closing=number == CLOSING):
            scored.add(attempt)
            charged += bool(random.random() < 0.7)
    assert scored_attempts(plan, rows(numbers)) <= scored


class Heard(LoggedEvents):
    """Remembers what the watcher of a run was told about scores."""

    def __init__(self):
        super().__init__()
        self.scores = {}

    def on_round(self, end):
        super().on_round(end)
        self.scores[end.start.attempt] = end.evaluation


@pytest.mark.parametrize("selection", ["last_average", "best_noised"])
def test_noise_in_the_place_of_a_score_is_shown_nowhere_and_decides_nothing(make_federation, selection):
    """The closing round is given up five times, then applied: its score is the sixth that was asked for, of four."""
    federation = make_federation(
        patients=4000, short={"rounds": 4, "maximum_attempts": 10},
        privacy={"delta": 2e-5}, evaluation={"every_rounds": 4}, aggregation={"model_selection": selection},
    )  # fmt: skip
    study = open_study(federation.study)
    assert evaluations(study.plan) == 4
    lost = Fault(Trouble.DROP, sites=("site-1", "site-2"), actions=("keylist",), rounds=(CLOSING,))
    assert federation.run(lost).state is RunState.KEEPS_FAILING  # five attempts at the closing round asked for scores
    heard = Heard()
    assert federation.run(events=heard).state is RunState.FINISHED
    study = open_study(federation.study)
    journal = open_journal(study)
    assert attempt_records(study, journal)[-1].outcome == "applied"
    assert not any(heard.scores.values())
    assert scores_by_version(study, journal) == {}
    assert study_status(study, journal)["scores"] == {}
    state = current_state(study, journal)
    assert state.finished
    assert state.best_score == -math.inf, "or noise would have chosen the model"
    assert same_state(replay(study, journal), state)


def test_a_plan_without_privacy_is_always_scored(make_federation):
    plan = open_study(make_federation(noise="none", short=SHORT).study).plan
    assert scored_attempts(plan, rows([3] * 9)) == set(range(1, 10))


def test_who_was_not_asked_or_refused_before_it_worked_was_not_asked_for_a_score(make_federation):
    """Three are needed, one refuses the closing round again and again: the score of the final model is still there."""
    federation = make_federation(
        3, patients=4000, short={"rounds": 4, "maximum_attempts": 10},
        privacy={"delta": 2e-5}, evaluation={"every_rounds": 4},
    )  # fmt: skip
    real = federation.sessions["site-2"]
    policy = replace(real._site.policy, plan_digest=bytes(32))
    journal = SiteJournal(federation.path / "other.sqlite")
    work = federation.work["site-2"]
    other = SiteSession(policy=policy, identity=federation.keys["site-2"], journal=journal, work=work)

    class Days(LoggedEvents):
        refusals = 0

        def on_round(self, end):
            if end.start.round_number == 4:
                federation.sessions["site-2"] = other

        def on_aborted(self, abort, wait_s):
            self.refusals += 1
            if self.refusals == 8:
                federation.sessions["site-2"] = real

    retries = RetryRules(first_wait_s=0.0, is_patient=True)
    settings = RunSettings(cohort_wait_s=5.0, gather_s=0.0, head_start_s=5.0, retries=retries)
    assert federation.run(events=Days(), settings=settings).state is RunState.FINISHED
    study = open_study(federation.study)
    journal = open_journal(study)
    assert len(journal.attempts()) == 13
    assert [row.cohort for row in asked_attempts(journal)[5:12]] == [()] * 7, "the refusing one alone was asked"
    assert list(scores_by_version(study, journal)) == [4]
