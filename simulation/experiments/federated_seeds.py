"""One scenario with several seeds: is the federation as good as the pooled model, paired seed by seed?

    python -m simulation.experiments.federated_seeds simulation/scenarios/pneumonia-4-hospitals.toml \
        --data pneumoniamnist.npz --seeds 5 --out runs/seeds

For each seed the whole scenario runs, comparisons included: other patients are labelled, other hospitals hold them.
Differences are paired, because one seed's easy split is easy for everybody; their interval is Student's t at 95 %.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from common.terminal import errors, print_json
from simulation.commands.run import summary
from simulation.run_folder import RunFolder
from simulation.running import run_built
from simulation.scenario import Comparisons, Scenario
from simulation.scenario_reading import read_scenario
from simulation.site_building import Watcher, build_run

FEDERATION = "federation"


def run_seed(file: Path, *, seed: int, data: Path | None, out: Path) -> dict[str, float]:
    """Run the scenario with one seed and all comparisons; return the test AUC of each, by key of the report."""
    chosen = read_scenario(file)
    compared = Comparisons(alone=True, supervised_only=True, without_privacy=True, pooled=True)
    scenario: Scenario = chosen.model_copy(update={"seed": seed, "comparisons": compared})
    folder = RunFolder(out / f"seed-{seed}")
    folder.path.mkdir(parents=True, exist_ok=True)
    archive = data or (scenario.archive_path(file) if scenario.hospitals.source == "archive" else None)
    watcher = Watcher(step=lambda _words, _pieces: None, reached=lambda _pieces: None)
    build_run(folder, scenario, file, archive=archive, watcher=watcher)
    finished = run_built(folder, scenario, console=errors, quiet=True, told=lambda _text: None)
    return {name: row["value"] for name, row in summary(finished, seconds=0.0)["compared"].items()}


def paired(differences: Sequence[float]) -> dict[str, float]:
    """Return mean and 95 % interval (Student's t, n - 1 degrees of freedom) of paired differences, n >= 2."""
    mean = statistics.fmean(differences)
    spread = statistics.stdev(differences) / math.sqrt(len(differences))
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * spread
    return {"mean": mean, "low": mean - half, "high": mean + half}


def collected(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return mean and spread of each model, and the federation's paired difference from every other."""
    names = [name for name in rows[0] if all(name in row for row in rows)]
    values = {name: [row[name] for row in rows] for name in names}
    return {
        "seeds": len(rows),
        "auc": {
            name: {"mean": statistics.fmean(found), "stdev": statistics.stdev(found), "values": found}
            for name, found in values.items()
        },
        "federation_minus": {
            name: paired([ours - theirs for ours, theirs in zip(values[FEDERATION], found, strict=True)])
            for name, found in values.items()
            if name != FEDERATION
        },
    }


def main() -> None:
    """Run the seeds and print one JSON object; results so far go to standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        rows.append(run_seed(arguments.scenario, seed=seed, data=arguments.data, out=arguments.out))
        errors.print(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in rows[-1].items()))
    print_json(collected(rows))


if __name__ == "__main__":
    main()
