import tomllib
from io import StringIO

import pytest
from rich.console import Console

from server.study.events import AttemptStart, RoundEnd, RunEnd, RunState
from server.study.journal_rows import AbortRow, AnswerRow
from simulation.report.facts import Estimate
from simulation.study.live_display import LiveDisplay
from simulation.study.plan_building import build_plan
from simulation.study.scenario_reading import SHIPPED, parse_scenario
from simulation.study.watching import AllEvents, SilentEvents

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
START = AttemptStart(9, 1, "head", 6, 40, is_closing=False, cohort=SITES)


@pytest.fixture(scope="module")
def plan():
    scenario = parse_scenario(tomllib.loads((SHIPPED / "demo.toml").read_text()), "demo")
    return build_plan(scenario, dict.fromkeys(SITES, (60, 540)), roster_digest="0" * 64, order_key="A" * 43 + "=")


def text_of(display):
    console = Console(file=StringIO(), width=120)
    console.print(display.render())
    return console.file.getvalue()


def test_a_person_sees_round_stage_sites_score_epsilon_bytes_and_time(plan):
    display = LiveDisplay(plan, Console(file=StringIO()), quiet=False)
    watchers = AllEvents([SilentEvents(), display])
    assert "starting" in text_of(display)
    watchers.on_waiting(2, 3)
    watchers.on_attempt(START)
    watchers.on_stage("forward", SITES, 60.0)
    watchers.on_answer(AnswerRow(7, "forward", "hospital-1", "taken", 10, 123_456, 0.1))
    watchers.on_answer(AnswerRow(7, "forward", "hospital-2", "timeout", 10, 0, 60.0))
    display.shown.score, display.shown.epsilon = Estimate(0.812, 0.8, 0.824), 3.456
    shown = text_of(display)
    for part in (
        "phase head, round 6 of 40: sending the masked update",
        "round 8/43", "test score 0.812 (0.800-0.824)", "epsilon 3.46 of 8", "123.5 kB", "silent", "so far",
    ):  # fmt: skip
        assert part in shown
    watchers.on_round(RoundEnd(START, SITES[:1], SITES[1:], None, 1.0))
    assert "round 9/43" in text_of(display)
    assert "left" in text_of(display)
    watchers.on_aborted(AbortRow(8, 710, "too few sites", ()), 2.0)
    assert "attempt 8 was given up: too few sites" in text_of(display)
    watchers.on_finished(RunEnd(RunState.FINISHED, "every round was applied", 70))
    assert "every round was applied" in text_of(display)


def test_without_a_terminal_a_line_now_and_then_and_quiet_means_nothing(plan):
    for quiet in (False, True):
        console = Console(file=StringIO(), force_terminal=False, width=200)
        with LiveDisplay(plan, console, quiet=quiet) as display:
            display._last_line_s = -1000.0
            display.on_attempt(START)
            display.on_attempt(START)
        lines = console.file.getvalue().splitlines()
        assert len(lines) == (0 if quiet else 1)
