"""A hospital that is much slower than the others costs what its absence costs."""

from dataclasses import replace

import pytest

from common.plan.errors import PlanInvalidError
from common.plan.reading import parse_plan
from server.attempts.exchange import Late
from server.attempts.retries import RetryRules, RunSettings
from server.study.events import RunState
from server.study.folder import open_study
from server.study.history import attempt_records
from server.study.progress import open_journal
from simulation.runtime.faults import Fault, Trouble

TIMES = {"training_timeout_s": 2.0, "stage_timeout_s": 2.0}
SETTINGS = RunSettings(
    cohort_wait_s=5.0, gather_s=0.0, result_timeout_s=5.0, least_patience_s=0.2,
    retries=RetryRules(first_wait_s=0.0, most_in_row=5),
)  # fmt: skip
SHORT = {"rounds": 2, "maximum_attempts": 6}


def outcomes(federation, asked, site):
    journal = open_journal(open_study(federation.study))
    return [row.outcome for row in journal.answers() if (row.asked, row.site) == (asked, site)]


@pytest.mark.parametrize("stage", ["order", "keylist", "forward", "survivors", "certificate"])
def test_the_round_goes_on_without_a_hospital_that_takes_much_longer_than_the_others(make_federation, stage):
    federation = make_federation(short=SHORT, timing=TIMES)
    hangs = Fault(Trouble.HANG, sites=("site-4",), actions=(stage,), attempts=(1,))
    assert federation.run(hangs, settings=SETTINGS).state is RunState.FINISHED
    assert outcomes(federation, stage, "site-4")[0] == "slow"
    study = open_study(federation.study)
    records = attempt_records(study, open_journal(study))
    assert [record.outcome for record in records] == ["applied"] * 3
    assert "site-4" not in records[1].ordered.cohort, "it rests as one that is silent does"


# why the slow one is waited for until the timeout: plan, and patience of the run
WAITED_FOR = {
    "the plan says so": ({"slow_multiple": 0.0}, SETTINGS, ("site-4",)),
    "too few are there without it": ({}, SETTINGS, ("site-3", "site-4")),
    "the stage is too young": ({}, replace(SETTINGS, least_patience_s=30.0), ("site-4",)),
    "others took as long": ({"slow_multiple": 1000.0}, replace(SETTINGS, least_patience_s=30.0), ("site-4",)),
}


@pytest.mark.parametrize(("timing", "settings", "slow"), WAITED_FOR.values(), ids=WAITED_FOR)
def test_the_slow_are_waited_for(make_federation, timing, settings, slow):
    times = {"training_timeout_s": 0.5, "stage_timeout_s": 0.5}
    federation = make_federation(short=SHORT, timing=times | timing)
    federation.run(Fault(Trouble.HANG, sites=slow, actions=("order",), attempts=(1,)), settings=settings)
    assert [outcomes(federation, "order", site)[0] for site in slow] == ["timeout"] * len(slow)


# seconds that answers took, whether enough are there -> after how long the rest is late (4 times the median, from 30 s)
LATE = {
    "four times the median": ([10.0, 20.0, 30.0], True, 80.0),
    "never within the first thirty seconds": ([0.1, 0.2, 0.3], True, 30.0),
    "not before enough are there": ([10.0, 20.0], False, float("inf")),
    "not before anybody is": ([], True, float("inf")),
}


@pytest.mark.parametrize(("seconds", "is_enough", "after_s"), LATE.values(), ids=LATE)
def test_after_how_long_the_rest_is_late(seconds, is_enough, after_s):
    assert Late(4.0, 30.0, lambda: is_enough).after_s(seconds) == after_s
    assert Late(0.0, 30.0, lambda: is_enough).after_s(seconds) == float("inf")


def test_a_multiple_that_half_of_all_hospitals_exceed_is_refused(small_document):
    document = small_document(["aa", "bb", "cc"], "distributed")
    with pytest.raises(PlanInvalidError, match=r"slow_multiple is 1\.2, it must be 0 \(wait for everybody\) or at"):
        parse_plan(document | {"timing": {"slow_multiple": 1.2}}, "test")


def test_a_plan_signed_before_there_was_the_setting_keeps_its_digest(make_federation):
    plan = make_federation().plan
    assert b"slow_multiple" not in plan.canonical()
    changed = plan.model_copy(update={"timing": plan.timing.model_copy(update={"slow_multiple": 9.0})})
    assert changed.digest() != plan.digest()
