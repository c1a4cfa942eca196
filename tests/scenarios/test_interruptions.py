"""The command as a process of its own: killed or interrupted at any moment, it goes on, and nothing shows that it was.

Randomness is injected by ``interrupted_run.py``, so that the final models can be compared to the last bit.
"""

import json
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from client.installation.folder import SiteFolder
from client.ledger.budget import EntryKind
from client.ledger.ledger import Ledger
from common.plan.reading import read_plan
from server.study.journal import Journal
from simulation.study.run_folder import RunFolder
from simulation.study.scenario_reading import parse_scenario
from simulation.study.site_building import build_run

PROGRAM = Path(__file__).parent / "interrupted_run.py"
SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
ROUNDS = 4  # one of the teacher, three of the student; the closing one comes on top
KILLED = -signal.SIGKILL
SCENARIO = """
format = "fedward-scenario/1"
name = "small"
title = "A small study that is killed"
[hospitals]
source = "phantoms"
patients = 12
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
[study.evaluation]
every_rounds = 2
[[study.phases]]
name = "teacher"
rounds = 1
maximum_attempts = 6
trainable = "head"
labelled_sampling_rate = 1.0
[[study.phases]]
name = "student"
rounds = 3
maximum_attempts = 12
method = "teacher_student"
labelled_sampling_rate = 1.0
unlabelled_sampling_rate = 1.0
confidence_threshold = 0.0
[running]
workers = 0
"""


class Runs:
    """Copies of one built run, each run by its own processes."""

    def __init__(self, path):
        self.path = path
        self.scenario = path / "small.toml"
        self.scenario.write_text(SCENARIO)
        self.template = path / "template"

    def copy(self, name):
        shutil.copytree(self.template, self.path / name)
        return RunFolder(self.path / name)

    def run(self, folder, moment="never", how="KILL", *, resume=True):
        """Run the command; return its exit status (negative: the signal) and what it printed."""
        command = [sys.executable, str(PROGRAM), moment, how, "run", str(self.scenario), "--out", str(folder.path)]
        command += ["--resume"] if resume else []
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        assert ended.returncode in {0, KILLED}, ended.stderr
        return ended.returncode, ended.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    made = Runs(tmp_path_factory.mktemp("interrupted"))
    build_run(RunFolder(made.template), parse_scenario(tomllib.loads(SCENARIO), "small"), made.scenario)
    return made


@pytest.fixture(scope="module")
def undisturbed(runs):
    folder = runs.copy("undisturbed")
    assert runs.run(folder)[0] == 0
    return Facts(folder)


class Facts:
    """What a run folder says: applied rounds, attempts that each ledger counts, the model."""

    def __init__(self, folder):
        self.folder = folder
        journal = Journal(folder.study.journal, bytes.fromhex(read_plan(folder.study.plan).digest()), only_reads=True)
        ordered = {row.attempt: (row.phase, row.round_number) for row in journal.attempts()}
        self.applied = [ordered[row.attempt] for row in journal.applied()]
        self.opened = {row.attempt: row.participants for row in journal.opened()}
        self.attempts = sorted(ordered)
        journal.close()
        self.spent = {site: self._spent(site) for site in SITES}

    def _spent(self, site):
        path = SiteFolder(self.folder.site(site)).ledger
        ledger = Ledger.open(path, ceiling=100.0)
        try:
            entries = [study.attempts.items() for study in ledger.spending()]
        finally:
            ledger.close()
        return {number for study in entries for number, kind in study if kind is not EntryKind.VOID}

    @property
    def model(self):
        return (self.folder.study.model / "model.safetensors").read_bytes()


def check_whole(facts, undisturbed):
    """Each round once, no attempt number twice, nothing uncharged, and the very same model."""
    assert facts.applied == undisturbed.applied == [(0, 1), (1, 1), (1, 2), (1, 3), (1, 4)]
    assert facts.attempts == list(range(1, len(facts.attempts) + 1))
    for attempt, participants in facts.opened.items():
        for site in participants:
            assert attempt in facts.spent[site]
    assert facts.model == undisturbed.model
    assert "How the model grew" in facts.folder.report.read_text()


@pytest.mark.slow
def test_a_run_that_is_interrupted_then_killed_ends_with_the_model_of_one_that_was_not(runs, undisturbed):
    folder = runs.copy("interrupted")
    status, said = runs.run(folder, "contribute:6", "INT")  # the second of four sites, in the second round
    assert status == 0
    assert "--resume" in said
    assert Facts(folder).applied == [(0, 1), (1, 1)]  # the round in which it came was finished, the next not begun
    assert runs.run(folder, "contribute:7")[0] == KILLED  # the second round of this process
    between = Facts(folder)
    assert between.applied == [(0, 1), (1, 1), (1, 2)]
    assert runs.run(folder)[0] == 0
    after = Facts(folder)
    check_whole(after, undisturbed)
    for site in SITES:
        assert between.spent[site] <= after.spent[site]


MOMENTS = {
    "before the first attempt is on disk": "record_attempt:1",
    "before an attempt is on disk": "record_attempt:3",
    "while a site trains": "contribute:10",
    "after a site has paid, before its masked vector leaves": "spend:7",
    "while a sum is written": "file sum-:2",
    "before a sum has its row": "record_opened:3",
    "while a checkpoint is written": "file after-:2",
    "before a checkpoint has its row": "record_applied:2",
    "after a round, before its last answers are noted": "record_answers:3",
    "while a teacher is written": "file .safetensors:9",
    "while a test score is written": "file scores.json:3",
    "in the closing round": "contribute:19",
    "before the closing round is applied": "record_applied:5",
    "while the final model is written": "file model.safetensors:1",
    "while the time is written": "file progress.json:1",
    "while the report is written": "file report.html:1",
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_run_that_is_killed_at_a_moment_goes_on(runs, undisturbed, moment, tmp_path):
    folder = runs.copy(tmp_path.name)
    assert runs.run(folder, moment)[0] == KILLED
    before = Facts(folder)
    assert runs.run(folder)[0] == 0
    after = Facts(folder)
    check_whole(after, undisturbed)
    assert before.applied == after.applied[: len(before.applied)]
    assert len(after.attempts) <= ROUNDS + 2  # at most the one in flight was lost
    for site in SITES:
        assert before.spent[site] <= after.spent[site]


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_all_the_same(runs, undisturbed):
    folder = runs.copy("again")
    for number in range(1, 12):
        status, _ = runs.run(folder, "record_opened:1" if number % 2 else "record_applied:2")
        if status == 0:
            break
    else:
        runs.run(folder)
    check_whole(Facts(folder), undisturbed)


@pytest.mark.slow
def test_a_run_that_is_killed_while_hospitals_read_their_scans_is_built_anew(runs):
    folder = RunFolder(runs.path / "half-built")
    assert runs.run(folder, "ingest:3", resume=False)[0] == KILLED
    assert not folder.ready.exists()
    assert runs.run(folder)[0] == 0
    assert len(Facts(folder).applied) == ROUNDS + 1
    assert load_file(folder.study.model / "model.safetensors")
    assert not folder.building.exists()


@pytest.mark.slow
def test_ctrl_c_in_the_last_round_leaves_a_finished_run(runs, undisturbed):
    folder = runs.copy("last")
    assert runs.run(folder, "contribute:18", "INT")[0] == 0  # in the closing round
    assert len(Facts(folder).applied) == ROUNDS + 1
    assert runs.run(folder)[0] == 0
    check_whole(Facts(folder), undisturbed)
    assert json.loads(folder.progress.read_text())["seconds"] > 0
