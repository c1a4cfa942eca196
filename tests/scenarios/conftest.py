"""Runs to try things on: one without scans, built once and copied, and one small real one, run once."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from client.ledger import Ledger
from client.site_folder import SiteFolder
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from server.events import RunEnd
from server.journal import Journal
from server.progress import current_state, open_journal
from server.retries import RetryRules
from server.run_options import RunOptions
from server.study_folder import open_study
from server.study_run import RunSettings
from simulation.faults import Fault
from simulation.made_up_work import Draw, made_up_site, numbered_update
from simulation.run_folder import RunFolder
from simulation.running import run_rounds_over_loopback
from simulation.scenario import Scenario
from simulation.scenario_reading import parse_scenario
from simulation.site_building import build_bare_run

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
        "timing": {"training_timeout_s": 20.0, "stage_timeout_s": 5.0},
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
