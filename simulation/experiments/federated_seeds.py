"""One scenario with several seeds: is the federation as good as the pooled model, paired seed by seed?

    python -m simulation.experiments.federated_seeds simulation/scenarios/pneumonia-4-hospitals.toml \
        --data pneumoniamnist.npz --seeds 5 --draws 2 --out runs/seeds

For each seed the whole scenario runs, comparisons included: other patients are labelled, other hospitals hold them.
Noise is never seeded, so the federation, and the pooled experiment on the very same labelled patients
(``simulation.experiments.pneumonia_pooled``, its semi-supervised arm), are trained ``--draws`` times a seed and their
AUC is averaged. Differences are paired, because one seed's easy split is easy for everybody; their interval is
Student's t at 95 %.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from client.dicom.record import Stratum
from client.learning.noise import PrivacyRandomness
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from common.plan.start import start_network
from common.terminal import errors, print_json
from simulation.commands.run import summary
from simulation.experiments.pooled import run_phase
from simulation.experiments.pooled_phases import PhaseMaker, semi_supervised
from simulation.study.comparisons import site_patients
from simulation.study.plain_training import UnitedPatients
from simulation.study.run_folder import RunFolder
from simulation.study.running import run_built
from simulation.study.scenario import Comparisons, Scenario
from simulation.study.scenario_reading import read_scenario
from simulation.study.site_building import Watcher, build_run
from simulation.study.test_set import load_test_set

FEDERATION = "federation"
POOLED_EXPERIMENT = "pooled-experiment"
ALL = Comparisons(alone=True, supervised_only=True, without_privacy=True, pooled=True)

Draws = dict[str, list[float]]  # test AUC of each model by key of the report, one for each draw of the noise


def run_seed(file: Path, *, seed: int, draws: int, data: Path | None, out: Path) -> Draws:
    """Run the scenario with one seed, all comparisons in the first draw; return the test AUC of each model."""
    scenario = read_scenario(file).model_copy(update={"seed": seed})
    archive = data or (scenario.archive_path(file) if scenario.hospitals.source == "archive" else None)
    found: Draws = {}
    for draw in range(draws):
        folder = RunFolder(out / (f"seed-{seed}-draw-{draw}" if draw else f"seed-{seed}"))
        compared = Comparisons() if draw else ALL
        for name, value in _run(folder, scenario.model_copy(update={"comparisons": compared}), file, archive).items():
            found.setdefault(name, []).append(value)
        if scenario.study.privacy.epsilon is not None and scenario.hospitals.source == "archive":
            found.setdefault(POOLED_EXPERIMENT, []).append(pooled_experiment(folder))
    return found


def pooled_experiment(folder: RunFolder) -> float:
    """Train the semi-supervised arm of the pooled experiment on a built run's patients; return its test AUC.

    One site, the experiment's own rounds, rates and noise; labelled patients, images and promise are the run's.
    """
    plan = read_plan(folder.study.plan)
    people = UnitedPatients({site.name: site_patients(folder.site(site.name), plan) for site in plan.sites})
    network = start_network(plan)
    for phase in semi_supervised(_maker(plan, people), standardise_rounds=2):
        run_phase(network, people, phase, noise=PrivacyRandomness())
    return load_test_set(folder.test_set, plan).judge(network).estimate.value


def paired(differences: Sequence[float]) -> dict[str, float]:
    """Return mean and 95 % interval (Student's t, n - 1 degrees of freedom) of paired differences, n >= 2."""
    mean = statistics.fmean(differences)
    spread = statistics.stdev(differences) / math.sqrt(len(differences))
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * spread
    return {"mean": mean, "low": mean - half, "high": mean + half}


def collected(rows: Sequence[Draws]) -> dict[str, Any]:
    """Return mean and spread of each model over seeds, and the federation's paired difference from every other.

    A seed's value is the mean of its draws; ``draws`` has each of them.
    """
    names = [name for name in rows[0] if all(name in row for row in rows)]
    values = {name: [statistics.fmean(row[name]) for row in rows] for name in names}
    return {
        "seeds": len(rows),
        "auc": {
            name: {
                "mean": statistics.fmean(found),
                "stdev": statistics.stdev(found),
                "values": found,
                "draws": [row[name] for row in rows],
            }
            for name, found in values.items()
        },
        "federation_minus": {
            name: paired([ours - theirs for ours, theirs in zip(values[FEDERATION], found, strict=True)])
            for name, found in values.items()
            if name != FEDERATION
        },
    }


def _run(folder: RunFolder, scenario: Scenario, file: Path, archive: Path | None) -> dict[str, float]:
    folder.path.mkdir(parents=True, exist_ok=True)
    watcher = Watcher(step=lambda _words, _pieces: None, reached=lambda _pieces: None)
    build_run(folder, scenario, file, archive=archive, watcher=watcher)
    finished = run_built(folder, scenario, console=errors, quiet=True, told=lambda _text: None)
    return {name: row["value"] for name, row in summary(finished, seconds=0.0)["compared"].items()}


def _maker(plan: StudyPlan, people: UnitedPatients) -> PhaseMaker:
    privacy = plan.privacy
    if privacy.epsilon is None or privacy.delta is None:
        raise ValueError("the pooled experiment is private; the scenario promises nothing")
    counts = {stratum: len(people.keys(stratum)) for stratum in Stratum}
    return PhaseMaker(
        labelled=counts[Stratum.LABELLED],
        unlabelled=counts[Stratum.UNLABELLED],
        epsilon=privacy.epsilon,
        delta=privacy.delta,
    )


def main() -> None:
    """Run the seeds and print one JSON object; results so far go to standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=1, help="noise draws for each seed")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("an interval needs at least two seeds")
    torch.set_num_threads(1)
    rows = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        rows.append(
            run_seed(arguments.scenario, seed=seed, draws=arguments.draws, data=arguments.data, out=arguments.out)
        )
        told = (f"{name} {' '.join(f'{value:.4f}' for value in found)}" for name, found in rows[-1].items())
        errors.print(f"seed {seed}: {', '.join(told)}")
    print_json(collected(rows))


if __name__ == "__main__":
    main()
