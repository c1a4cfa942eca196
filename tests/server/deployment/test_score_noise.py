"""The noise of the scores, found by a child process: the same numbers, and the same again where there is no child."""

import subprocess
import sys

import pytest

from common.plan.reading import parse_plan
from common.plan.selection import noise_stddev_of_counts
from server.deployment import score_noise
from server.deployment.score_noise import ScoreNoise
from server.model import evaluation

SITES = ["site-1", "site-2", "site-3", "site-4"]


@pytest.fixture
def plan(small_document):
    return parse_plan(small_document(SITES, noise="distributed"), "test")


def test_a_child_finds_the_same_numbers_and_the_accountant_stays_out_of_this_process(plan):
    script = (
        "import sys; from common.plan.plan import StudyPlan; from server.deployment.score_noise import ScoreNoise;"
        "noise = ScoreNoise(StudyPlan.model_validate_json(sys.stdin.buffer.read(), strict=False));"
        "print(*(noise(count).hex() for count in (3, 4))); assert 'dp_accounting' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], input=plan.canonical(), capture_output=True, check=True)
    assert done.stdout.decode().split() == [noise_stddev_of_counts(plan, count).hex() for count in (3, 4)]


@pytest.mark.parametrize("damage", ["killed", "no program"])
def test_without_the_child_the_numbers_are_found_here(plan, damage, monkeypatch):
    if damage == "no program":
        monkeypatch.setattr(sys, "executable", "/bin/true")
    noise = ScoreNoise(plan)
    noise._child.kill()
    assert noise(3) == noise_stddev_of_counts(plan, 3)


def test_where_no_child_can_be_started_the_numbers_are_found_here(plan, monkeypatch):
    def no_memory(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", no_memory)
    assert ScoreNoise(plan)(3) == noise_stddev_of_counts(plan, 3)


def test_a_child_that_hangs_is_ended_and_waited_for(plan, monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\ncat > /dev/null\nexec sleep 60\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(score_noise, "TIMEOUT_S", 0.5)
    noise = ScoreNoise(plan)
    child = noise._child
    assert noise(3) == noise_stddev_of_counts(plan, 3)
    assert child.returncode is not None, "or it stays as a zombie for weeks"


def test_an_evaluation_asks_the_source_of_its_own_plan_only(plan, small_document, monkeypatch):
    monkeypatch.setattr(evaluation, "_SOURCES", {})
    other = parse_plan(small_document(SITES[:3], noise="distributed"), "test")
    evaluation.take_noise_from(plan, lambda participants: 100.0 + participants)
    assert evaluation.count_noise_stddev(plan, 4) == 104.0
    assert evaluation.count_noise_stddev(other, 3) == noise_stddev_of_counts(other, 3)
