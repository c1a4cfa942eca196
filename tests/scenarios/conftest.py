"""Runs to try things on: one without scans, built once and copied, and one small real one, run once."""

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from client.consent.open_studies import OpenStudy
from client.installation.folder import SiteFolder
from client.learning.speed import Speed
from client.ledger.ledger import Ledger
from client.round_work import StudyWork
from client.secagg.state import Contribution
from client.site import Site
from client.trainer.local_work import local_work
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from server.attempts.retries import RetryRules, RunSettings
from server.attempts.run_options import RunOptions
from server.study.events import RunEnd
from server.study.folder import open_study
from server.study.journal import Journal
from server.study.progress import current_state, open_journal
from simulation.runtime.faults import Fault
from simulation.runtime.loopback import Sent
from simulation.runtime.made_up_work import Draw, made_up_site, numbered_update
from simulation.study.run_folder import RunFolder
from simulation.study.running import Finished, run_built, run_rounds_over_loopback
from simulation.study.scenario import Scenario
from simulation.study.scenario_reading import parse_scenario
from simulation.study.site_building import build_bare_run, build_run

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
ROUNDS = 6
SETTINGS = RunSettings(
    cohort_wait_s=0.2, gather_s=0.0, result_timeout_s=5.0, retries=RetryRules(first_wait_s=0.0, longest_wait_s=0.0)
)
BARE: dict[str, Any] = {
    "format": "fedward-scenario/1",
    "name": "bare",
    "title": "A study of made-up updates",
    "hospitals": {"source": "phantoms", "sites": 4, "size_px": 32},
    "study": {
        "task": {
            "kind": "classification",
            "classes": ["normal", "consolidation"],
            "modalities": ["DX"],
            "dimensions": 2,
        },
        "image": {"size_px": [32, 32], "intensity": "percentiles"},
        "privacy": {"noise": "distributed", "epsilon": 8.0, "delta": 1e-3},
        "secure_aggregation": {
            "cohort_size": 4,
            "threshold": 3,
            "minimum_survivors": 3,
            "assumed_colluders": 1,
            "coordinate_range": 16.0,
        },
        "aggregation": {"rule": "mean", "learning_rate": 0.1, "average_decay": 0.0},
        "evaluation": {"held_out": False},
        "timing": {"training_timeout_s": 600.0, "stage_timeout_s": 300.0},  # a loaded machine loses nobody
        "phases": [
            {
                "name": "only",
                "rounds": ROUNDS,
                "maximum_attempts": 20,
                "trainable": "head",
                "labelled_sampling_rate": 0.5,
            }
        ],
    },
    "running": {"workers": 0},
}


@dataclass
class BareRun:
    """A built run without scans, and how to run it."""

    folder: RunFolder
    scenario: Scenario
    plan: StudyPlan
    sent: list[Any] = field(default_factory=list)

    def run(
        self,
        faults: Sequence[Fault] = (),
        *,
        draw: Draw = numbered_update,
        should_stop: Callable[[], bool] | None = None,
    ) -> RunEnd:
        options = RunOptions(settings=SETTINGS, longest_poll_s=0.01, hello_timeout_s=2.0)
        if should_stop:
            options = RunOptions(settings=SETTINGS, longest_poll_s=0.01, should_stop=should_stop)
        return run_rounds_over_loopback(
            self.folder,
            self.scenario,
            self.plan,
            options,
            tap=self.sent.append,
            open_site=lambda path: made_up_site(path, draw),
            faults=faults,
        )

    def twin(self, template: Path, target: Path) -> "BareRun":
        """The same run, not yet begun."""
        shutil.copytree(template, target)
        return BareRun(RunFolder(target), self.scenario, self.plan)

    def journal(self) -> Journal:
        return open_journal(open_study(self.folder.study.path))

    def parameters(self) -> Any:
        study = open_study(self.folder.study.path)
        return current_state(study, open_journal(study)).parameters

    def spending(self, site: str) -> Any:
        ledger = Ledger.open(SiteFolder(self.folder.site(site)).ledger, ceiling=100.0)
        try:
            return ledger.spending()
        finally:
            ledger.close()


@pytest.fixture
def bare_document() -> dict[str, Any]:
    """The scenario without scans, to change."""
    return copy.deepcopy(BARE)


@pytest.fixture(scope="session")
def bare_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bare")
    build_bare_run(RunFolder(path), parse_scenario(BARE, "bare"), dict.fromkeys(SITES, (50, 50)))
    return path


@pytest.fixture
def bare_run(bare_template: Path, tmp_path: Path) -> BareRun:
    target = tmp_path / "run"
    shutil.copytree(bare_template, target)
    folder = RunFolder(target)
    return BareRun(folder, parse_scenario(BARE, "bare"), read_plan(folder.study.plan))


REAL: dict[str, Any] = {
    **BARE,
    "name": "real",
    "title": "A small study with real training",
    "hospitals": {
        "source": "phantoms",
        "sites": 4,
        "patients": 40,
        "size_px": 32,
        "labelled_share": 0.9,  # about twenty held-out patients in all
        "unlabelled_sites": 1,
        "test_patients": 60,
    },
    "study": {
        **BARE["study"],
        "evaluation": {"every_rounds": 1, "epsilon": 50.0, "score_bins": 8},
        "privacy": {"noise": "distributed", "epsilon": 50.0, "delta": 4e-3},  # little noise: no class comes out empty
        "phases": [
            {
                "name": "teacher",
                "rounds": 1,
                "maximum_attempts": 3,
                "trainable": "head",
                "labelled_sampling_rate": 1.0,
            },
            {
                "name": "student",
                "rounds": 2,
                "maximum_attempts": 6,
                "method": "teacher_student",
                "labelled_sampling_rate": 0.5,
                "unlabelled_sampling_rate": 0.5,
                "unlabelled_clip_ratio": 1.0,
                "confidence_threshold": 0.0,
            },
        ],
    },
    "faults": [{"trouble": "drop", "sites": ["hospital-3"], "rounds": [2], "actions": ["order"]}],
    "comparisons": {"pooled": True},
    "running": {"workers": 0, "comparison_processes": 1},
}


@dataclass
class RealRun:
    """A small study that was run once, from scans to the report, with everything that any site sent.

    ``contributions``: (site, attempt) -> the noised vector as training gave it, before masking.
    """

    folder: RunFolder
    scenario: Scenario
    plan: StudyPlan
    finished: Finished
    sent: list[Sent]
    contributions: dict[tuple[str, int], Contribution]


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    path = tmp_path_factory.mktemp("real")
    folder, scenario = RunFolder(path / "run"), parse_scenario(REAL, "real")
    file = path / "real.toml"
    file.write_text("# the scenario of a test\n")
    plan = build_run(folder, scenario, file)
    sent: list[Sent] = []
    contributions: dict[tuple[str, int], Contribution] = {}

    def recorded(where: SiteFolder, study: OpenStudy) -> StudyWork:
        work = local_work(where, study, Speed())
        contribute = work.contribute

        def recording(order, model, until_unix_s):
            found = contribute(order, model, until_unix_s)
            contributions[study.checked.site_id, order.attempt] = found
            return found

        work.contribute = recording
        return work

    def open_site(site_path: Path) -> Site:
        return Site(SiteFolder(site_path), recorded, holds_replies=False)

    console = Console(file=StringIO())
    finished = run_built(folder, scenario, console=console, quiet=True, tap=sent.append, open_site=open_site)
    return RealRun(folder, scenario, plan, finished, sent, contributions)
