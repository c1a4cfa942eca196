"""Who takes part, who rests, and how parts of a cohort are tried after unsound sums."""

import pytest

from common.plan.reading import parse_plan
from common.secagg.refusals import Check
from server.attempts.cohort import Attendance, choose_cohort, least_cohort, part_of
from server.attempts.retries import Failures, RetryRules
from server.study.events import RunState

SITES = ("east", "north", "south", "west")


@pytest.fixture
def plan(plan_document):
    plan_document["secure_aggregation"] |= {"minimum_survivors": 3, "threshold": 3, "cohort_size": 4}
    return parse_plan(plan_document, "test")


def test_the_least_cohort_can_finish(plan):
    assert least_cohort(plan) == 3


def test_everybody_who_is_online_takes_part(plan):
    assert choose_cohort(plan, SITES, Attendance()) == SITES
    assert choose_cohort(plan, SITES[1:], Attendance()) == SITES[1:]


def test_too_few_make_no_cohort(plan):
    assert choose_cohort(plan, SITES[:2], Attendance()) is None


def test_a_cohort_is_never_larger_than_planned_and_everybody_has_a_turn(plan_document):
    plan_document["secure_aggregation"] |= {"cohort_size": 3, "threshold": 3, "minimum_survivors": 3}
    plan = parse_plan(plan_document, "test")
    cohorts = [choose_cohort(plan, SITES, Attendance()) for _ in range(200)]
    assert {len(cohort) for cohort in cohorts} == {3}
    assert {site for cohort in cohorts for site in cohort} == set(SITES)
    assert all(list(cohort) == sorted(cohort) for cohort in cohorts)


def test_a_silent_site_rests_longer_each_time_and_a_timely_one_starts_over(plan):
    attendance, rests = Attendance(), []
    for _ in range(6):
        attendance.note_timeouts({"west"}, set(SITES) - {"west"})
        rests.append(0)
        while attendance.rests("west"):
            assert choose_cohort(plan, SITES, attendance) == SITES[:3]
            attendance.note_timeouts(set(), set(SITES[:3]))
            rests[-1] += 1
    assert rests == [1, 2, 4, 8, 16, 16]
    attendance.note_timeouts(set(), set(SITES))
    attendance.note_timeouts({"west"}, set(SITES[:3]))
    assert attendance.resting["west"] == 1


def test_resting_sites_are_called_in_where_the_others_do_not_suffice(plan):
    attendance = Attendance()
    attendance.note_timeouts({"west"}, set(SITES[:3]))
    attendance.note_timeouts({"west"}, set(SITES[:3]))
    attendance.note_timeouts({"north"}, {"east", "south"})
    assert choose_cohort(plan, SITES, attendance) in {("east", "north", "south"), ("east", "south", "west")}


def test_parts_are_public_and_leave_each_site_out_in_turn(plan):
    parts = [part_of(SITES, plan=plan, number=number) for number in range(4)]
    assert parts == [part_of(SITES, plan=plan, number=number) for number in range(4)]
    assert {frozenset(SITES) - set(part) for part in parts} == {frozenset({site}) for site in SITES}
    assert all(len(part) == 3 and list(part) == sorted(part) for part in parts)


def failed(*checks):
    failures = Failures()
    for check in checks:
        failures.note(check)
    return failures


FEW, SUM = Check.C_TOO_FEW, Check.C_SUM
VERDICTS = {
    "nothing failed": (failed(), 4, None),
    "dropouts are tried again": (failed(*[FEW] * 9), 4, None),
    "not for ever": (failed(*[FEW] * 10), 4, RunState.KEEPS_FAILING),
    "two unsound sums lead to parts": (failed(SUM, SUM), 4, None),
    "each site is left out twice": (failed(*[SUM] * 9), 4, None),
    "then it ends": (failed(*[SUM] * 10), 4, RunState.UNSOUND_SUMS),
    "where there is no smaller part, the third is the last": (failed(SUM, SUM, SUM), 3, RunState.UNSOUND_SUMS),
}


@pytest.mark.parametrize(("failures", "size", "verdict"), VERDICTS.values(), ids=VERDICTS)
def test_how_failures_end_a_run(failures, size, verdict):
    assert failures.verdict(RetryRules(), cohort_size=size, part_size=3) is verdict


def test_waiting_doubles_up_to_a_limit_and_starts_over():
    failures, rules, waits = Failures(), RetryRules(first_wait_s=1, longest_wait_s=8), []
    for _ in range(5):
        failures.note(FEW)
        waits.append(failures.wait_s(rules))
    failures.clear()
    failures.note(SUM)
    assert [*waits, failures.wait_s(rules)] == [1, 2, 4, 8, 8, 1]
    assert not failures.tries_parts
