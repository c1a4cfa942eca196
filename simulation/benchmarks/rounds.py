"""What a round costs without training: our loopback against Flower's own simulation runtime on Ray.

    python -m simulation.benchmarks.rounds [--json] [--sites 4 --sites 16 --sites 100] [--rounds 8] [--ray / --no-ray]

The app, the study and the made-up updates are the same on both: everything but training, with all durable writes on
(ledger, journals, outbox, sums, checkpoints). NVFlare's simulator is not measured: it is no dependency, and would run
another app. Wall-clock time on the machine as it is: compare the columns of a row, not rows of different days.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from common.plan.reading import read_plan
from server.events import RoundEnd
from server.run_options import RunOptions, set_options
from simulation.made_up_work import empty_update, made_up_site
from simulation.run_folder import RunFolder
from simulation.running import QUICK, run_rounds_over_loopback
from simulation.scenario import Scenario
from simulation.scenario_reading import parse_scenario
from simulation.site_building import build_bare_run
from simulation.watching import SilentEvents

RAY_START_S = 180.0  # actors need a while until the first site can say who it is
NVFLARE = "not measured: NVFlare is no dependency of this project"


@dataclass(frozen=True, slots=True)
class Row:
    """One number of sites; milliseconds of a round (median), seconds until the first round was done. None: not run."""

    sites: int
    ours_ms_per_round: float
    flower_ray_ms_per_round: float | None
    nvflare_ms_per_round: float | None
    ours_start_s: float
    flower_ray_start_s: float | None


@dataclass
class Stopwatch(SilentEvents):
    """Notes when each round was done."""

    began_s: float = field(default_factory=time.perf_counter)
    ends_s: list[float] = field(default_factory=list)

    def on_round(self, end: RoundEnd) -> None:
        """Note it."""
        del end
        self.ends_s.append(time.perf_counter())

    def start_s(self) -> float:
        """Return seconds from the start to the end of the first round."""
        return self.ends_s[0] - self.began_s

    def ms_per_round(self) -> float:
        """Return the median of the later rounds."""
        return 1000 * median(later - earlier for earlier, later in zip(self.ends_s, self.ends_s[1:], strict=False))


def bare_scenario(sites: int, rounds: int) -> Scenario:
    """Return a study without scans: 24 000 weights, whole network, no held-out patients."""
    phase = {"name": "only", "rounds": rounds, "trainable": "all", "labelled_sampling_rate": 0.2}
    document: dict[str, Any] = {
        "format": "fedward-scenario/1",
        "name": "bare",
        "title": "Rounds without training",
        "hospitals": {"source": "phantoms", "sites": sites, "size_px": 32},
        "study": {
            "task": {
                "kind": "classification",
                "classes": ["normal", "consolidation"],
                "modalities": ["DX"],
                "dimensions": 2,
            },
            "image": {"size_px": [32, 32], "intensity": "percentiles"},
            "privacy": {"noise": "distributed", "epsilon": 8.0, "delta": 1e-4},
            "evaluation": {"held_out": False},
            "phases": [phase],
        },
        "running": {"workers": 8},
    }
    return parse_scenario(document, "the benchmark")


def measure(sites: int, rounds: int, run: Callable[[RunFolder, Scenario, RunOptions], object]) -> Stopwatch:
    """Build a study of ``sites`` sites, run it, and return the stopwatch."""
    with tempfile.TemporaryDirectory() as path:
        folder, scenario = RunFolder(Path(path)), bare_scenario(sites, rounds)
        build_bare_run(folder, scenario, {f"hospital-{number}": (10, 10) for number in range(1, sites + 1)})
        watch = Stopwatch()
        run(folder, scenario, RunOptions(watch, settings=QUICK, longest_poll_s=0.02))
        return watch


def on_loopback(folder: RunFolder, scenario: Scenario, options: RunOptions) -> None:
    """Run on our loopback grid."""
    plan = read_plan(folder.study.plan)
    run_rounds_over_loopback(folder, scenario, plan, options, open_site=lambda path: made_up_site(path, empty_update))


def on_ray(folder: RunFolder, scenario: Scenario, options: RunOptions) -> None:
    """Run on Flower's simulation runtime; imported here, because Ray is a development dependency."""
    from simulation.ray_runtime import run_on_ray  # noqa: PLC0415 (optional extra)

    patient = replace(options.settings, cohort_wait_s=RAY_START_S)
    set_options(folder.study.path, replace(options, settings=patient, hello_timeout_s=RAY_START_S))
    sites = [folder.site(f"hospital-{number}") for number in range(1, scenario.hospitals.sites + 1)]
    run_on_ray(folder.study.path, sites, open_site=lambda path: made_up_site(path, empty_update))


def measured_row(sites: int, rounds: int, *, with_ray: bool) -> Row:
    """Measure both runtimes for one number of sites."""
    ours = measure(sites, rounds, on_loopback)
    ray = measure(sites, rounds, on_ray) if with_ray else None
    return Row(
        sites,
        ours.ms_per_round(),
        ray.ms_per_round() if ray else None,
        None,
        ours.start_s(),
        ray.start_s() if ray else None,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sites", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True)
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows = [measured_row(sites, chosen.rounds, with_ray=chosen.ray) for sites in chosen.sites or [4, 16, 100]]
    if chosen.json:
        answer = {"rows": [asdict(row) for row in rows], "notes": {"nvflare": NVFLARE, "rounds": chosen.rounds}}
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    table = Table("sites", "ours, ms a round", "Flower on Ray, ms a round", "ours, first round s", "Ray, first round s")
    for row in rows:
        shown = (row.ours_ms_per_round, row.flower_ray_ms_per_round, row.ours_start_s, row.flower_ray_start_s)
        table.add_row(str(row.sites), *("" if value is None else f"{value:.1f}" for value in shown))
    Console().print(table)


if __name__ == "__main__":
    main()
