"""The command itself, on a small study: JSON keys, table, resume after an interruption, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from common.errors import ExitCode, FileUnreadableError
from common.plan.reading import read_plan
from common.plan.task import Modality, TaskKind
from common.terminal import new_application
from server.drafting.plan_text import plan_toml
from server.drafting.planning import plan_for
from server.drafting.recipes import Question, Recipe
from server.study.journal import Journal
from simulation.commands.run import summary
from simulation.errors import ScenarioInvalidError
from simulation.study.run_folder import RunFolder
from simulation.study.scenario_reading import parse_scenario

STUDY = {"name": "lungs-2026", "title": "lungs", "roster_digest": "0" * 64, "order_key": "A" * 43 + "="}
REQUIRED = {
    "auc", "auc_interval", "epsilon", "delta", "rounds", "sites", "bytes_out_per_site", "seconds", "report",
}  # fmt: skip


def test_the_json_answer_has_the_agreed_keys_and_they_agree_with_the_files(real_run):
    answer = json.loads(json.dumps(summary(real_run.finished, seconds=12.5)))
    assert set(answer) >= REQUIRED
    low, high = answer["auc_interval"]
    assert low <= answer["auc"] <= high
    assert answer["rounds"] == 3
    assert answer["attempts"] == 4
    assert answer["sites"] == 4
    assert 0 < answer["epsilon"] <= answer["epsilon_promised"]
    assert set(answer["bytes_out_per_site"]) == {f"hospital-{number}" for number in range(1, 5)}
    assert answer["bytes_out_per_site"]["hospital-3"] < answer["bytes_out_per_site"]["hospital-1"]
    assert set(answer["compared"]) == {"federation", "pooled"}
    assert Path(answer["report"]).exists()


def test_the_run_folder_holds_plan_journal_checkpoint_model_and_report(real_run):
    folder = real_run.folder
    assert read_plan(folder.study.plan).digest() == real_run.plan.digest()
    assert folder.study.journal.exists()
    assert list(folder.study.checkpoints.glob("after-*.safetensors"))
    model = load_file(folder.study.model / "model.safetensors")
    assert any("head" in name for name in model)
    assert folder.report.exists()
    assert "attempt 1" in folder.log.read_text()


def application():
    return new_application("fedward-sim", "help", {"run": ("simulation.commands.run:run", "Run.")})


REFUSED = {
    "resume without a folder": (["demo", "--resume"], ScenarioInvalidError, "--resume needs --out"),
    "nothing to run": ([], ScenarioInvalidError, "name a scenario, or a plan with --from"),
    "a scenario and a plan": (["demo", "--from", "study.toml"], ScenarioInvalidError, "one of the two"),
    "a plan that is not there": (["--from", "study.toml"], FileUnreadableError, "study.toml"),
    "an unknown scenario": (["demmo"], ScenarioInvalidError, "did you mean demo"),
}


@pytest.mark.parametrize(("arguments", "error", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_the_command_refuses(arguments, error, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(application(), ["run", *arguments])
    assert isinstance(result.exception, error)
    assert sentence in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_left_alone(real_run, tmp_path):
    result = CliRunner().invoke(application(), ["run", "demo", "--out", str(real_run.folder.path)])
    assert result.exception.exit_code == ExitCode.OUTPUT_EXISTS


@pytest.mark.slow
def test_a_plan_for_real_hospitals_is_tried_with_its_own_noise_before_anybody_signs_it(tmp_path):
    question = Question(TaskKind.CLASSIFICATION, ("normal", "mass"), (Modality.DX,), (32, 32), 8.0, 1e-4)
    plan = plan_for(Recipe.RIDGE, question, dict.fromkeys(("east", "north", "west"), (30, 60)), STUDY).plan
    (tmp_path / "lungs-2026").mkdir()
    file = tmp_path / "lungs-2026" / "study.toml"
    file.write_text(plan_toml(plan))
    out = tmp_path / "run"
    result = CliRunner().invoke(application(), ["run", "--from", str(file), "--out", str(out), "--json"])
    assert result.exception is None, result.output
    answer, tried = json.loads(result.stdout), read_plan(RunFolder(out).study.plan)
    assert (answer["state"], answer["rounds"], answer["epsilon_promised"]) == ("finished", 4, 8.0)
    assert answer["auc"] > 0.5
    assert [phase.noise_multiplier for phase in tried.phases] == [phase.noise_multiplier for phase in plan.phases]
    assert sum(site.labelled_patients for site in tried.sites) == pytest.approx(90, abs=12)


SMALL = """
format = "fedward-scenario/1"
name = "small"
title = "A small study that is killed"
[hospitals]
source = "phantoms"
patients = 20
labelled_share = 0.5
test_patients = 50
[study.task]
kind = "classification"
classes = ["normal", "consolidation"]
modalities = ["DX"]
dimensions = 2
[study.image]
size_px = [32, 32]
intensity = "percentiles"
[study.privacy]
noise = "distributed"
epsilon = 8.0
delta = 1e-3
[[study.phases]]
name = "only"
rounds = 12
trainable = "head"
labelled_sampling_rate = 0.5
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_or_interrupted_goes_on_with_resume(tmp_path, how):
    (tmp_path / "small.toml").write_text(SMALL)
    parse_scenario(tomllib.loads(SMALL), "small")
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-m", "simulation", "run", str(tmp_path / "small.toml"), "--out", str(folder.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path.cwd())
    while process.poll() is None and rounds_of(folder) < 3:
        os.sched_yield()
    process.send_signal(how)
    process.communicate()
    assert process.returncode == (0 if how is signal.SIGINT else -signal.SIGKILL)
    before = rounds_of(folder)
    assert 3 <= before < 13
    resumed = subprocess.run([*command, "--resume", "--json"], capture_output=True, check=True, text=True)
    answer = json.loads(resumed.stdout)
    assert answer["rounds"] == 12
    assert rounds_of(folder) == 13
    assert plan_toml(read_plan(folder.study.plan))


def rounds_of(folder):
    if not folder.ready.exists() or not folder.study.journal.exists():
        return 0
    journal = Journal(folder.study.journal, bytes.fromhex(read_plan(folder.study.plan).digest()))
    try:
        return len(journal.applied())
    finally:
        journal.close()
