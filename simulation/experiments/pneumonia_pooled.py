"""PneumoniaMNIST at one site, 5 % labels, epsilon = 8: what unlabelled patients and public start weights buy.

``python -m simulation.experiments.pneumonia_pooled --seeds 5 --json FILE`` (about half an hour of one core).
The test set is public and outside the protocol; it is looked at once for each trained model. delta = 1e-5.

The arms
    supervised              labelled patients train the head
    supervised, centred     they first spend epsilon 2 of 8 on standardising the features
    semi-supervised         unlabelled patients standardise the features (they have a budget of their own: disjoint
                            strata), labelled patients train the head
    ... with student        then unlabelled patients train the whole network on the teacher's pseudo-labels
    all labels              every patient is labelled: standardise, then the head
    no privacy              references without clip and noise: the same semi-supervised pipeline; the whole network
                            trained by Adam on 5 % and on all labels
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from client.learning.noise import PrivacyRandomness
from client.learning.patients import ArrayPatients
from common.networks.initialisation import available, load_initialisation
from common.networks.registry import build_network
from common.privacy.accounting import SampledGaussian, epsilon
from simulation.experiments.pneumonia import DEFAULT_FILE, Pneumonia
from simulation.experiments.pooled import PooledPhase, run_phase, train_openly, without_privacy
from simulation.experiments.pooled_phases import PhaseMaker, semi_supervised

EPSILON, DELTA = 8.0, 1e-5
LABELLED_SHARE = 0.05
WIDTH = 16


class Arms:
    """The arms for one seed and one start; each returns the network that it trained."""

    def __init__(self, data: Pneumonia, *, seed: int, public: bool) -> None:
        self._data, self._seed, self._public = data, seed, public
        self._few = data.patients(labelled_share=LABELLED_SHARE, seed=seed)
        self._all = data.patients(labelled_share=1.0, seed=seed)
        self._rounds = 2 if public else 4  # features of random weights vary less and need more rounds to be stretched

    def supervised(self) -> nn.Module:
        """Train the head on labelled patients."""
        return self._run(self._few, [self._few_maker().head(rounds=80)])

    def supervised_centred(self) -> nn.Module:
        """Standardise on labelled patients, then the head, both within epsilon 8."""
        maker = self._few_maker()
        return self._run(self._few, [maker.standardise_labelled(self._rounds, epsilon=2.0), maker.head(rounds=40)])

    def semi_supervised(self) -> nn.Module:
        """Standardise on unlabelled patients, then the head on labelled ones."""
        return self._run(self._few, self._teacher_phases(self._few_maker()))

    def semi_supervised_student(self) -> nn.Module:
        """The same, then a student of the whole network."""
        maker = self._few_maker()
        return self._run(self._few, [*self._teacher_phases(maker), maker.student(rounds=50)])

    def all_labels(self) -> nn.Module:
        """Every patient labelled: standardise, then the head."""
        maker = PhaseMaker(labelled=len(self._data.train_labels), unlabelled=0, epsilon=EPSILON, delta=DELTA)
        phases = [maker.standardise_labelled(self._rounds, epsilon=2.0), maker.head(rounds=40, sampling_rate=0.25)]
        return self._run(self._all, phases)

    def open_semi_supervised(self) -> nn.Module:
        """The semi-supervised pipeline without clip and noise."""
        phases = [without_privacy(phase) for phase in self._teacher_phases(self._few_maker())]
        return self._run(self._few, phases)

    def open_supervised(self) -> nn.Module:
        """The whole network by Adam on 5 % of the labels."""
        return train_openly(self._start(), self._few, epochs=40, seed=self._seed)

    def open_all_labels(self) -> nn.Module:
        """The whole network by Adam on all labels."""
        return train_openly(self._start(), self._all, epochs=8, seed=self._seed)

    def _few_maker(self) -> PhaseMaker:
        count = len(self._data.train_labels)
        labelled = round(LABELLED_SHARE * count)
        return PhaseMaker(labelled=labelled, unlabelled=count - labelled, epsilon=EPSILON, delta=DELTA)

    def _teacher_phases(self, maker: PhaseMaker) -> list[PooledPhase]:
        return semi_supervised(maker, standardise_rounds=self._rounds)

    def _start(self) -> nn.Module:
        network = build_network("small_cnn", dimensions=2, classes=2, width=WIDTH, seed=self._seed)
        if self._public:
            digests = {(e.network, e.dimensions, e.width): e.digest for e in available()}
            load_initialisation(network, digests["small_cnn", 2, WIDTH])
        return network

    def _run(self, patients: ArrayPatients, phases: list[PooledPhase]) -> nn.Module:
        _check_budget(phases)
        network = self._start()
        for phase in phases:
            run_phase(network, patients, phase, noise=PrivacyRandomness())
        return network


ARMS: dict[str, Callable[[Arms], nn.Module]] = {
    "supervised": Arms.supervised,
    "supervised, centred": Arms.supervised_centred,
    "semi-supervised": Arms.semi_supervised,
    "semi-supervised with student": Arms.semi_supervised_student,
    "all labels": Arms.all_labels,
    "no privacy, semi-supervised": Arms.open_semi_supervised,
    "no privacy, 5 % labels": Arms.open_supervised,
    "no privacy, all labels": Arms.open_all_labels,
}


def _check_budget(phases: list[PooledPhase]) -> None:
    """Refuse an arm that would spend more than epsilon 8 of any patient (phases without noise promise nothing)."""
    for labelled in (True, False):
        events = [event for phase in phases if (event := _event(phase, labelled=labelled)) is not None]
        spent = epsilon(events, DELTA)
        if spent > EPSILON:
            raise RuntimeError(f"the phases spend epsilon {spent:.3f} of a patient, more than {EPSILON:g}")


def _event(phase: PooledPhase, *, labelled: bool) -> SampledGaussian | None:
    settings = phase.settings
    rate = settings.labelled_sampling_rate if labelled else settings.unlabelled_sampling_rate
    if rate == 0 or settings.noise_multiplier == 0:
        return None
    ratio = 1.0 if labelled else settings.unlabelled_clip_ratio
    return SampledGaussian(rate, settings.noise_multiplier / ratio, phase.rounds)


def main() -> None:
    """Run the arms for every seed; print a table, and JSON after every result if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DEFAULT_FILE)
    parser.add_argument("--json", type=Path, help="file for the results, rewritten after each")
    parser.add_argument("--start", choices=["public", "random"], help="only these start weights")
    parser.add_argument("--arm", action="append", choices=list(ARMS), help="only this arm (may be repeated)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = Pneumonia.read(arguments.data)
    rows: list[dict[str, object]] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for public in [start == "public" for start in ("public", "random") if arguments.start in {None, start}]:
            arms = Arms(data, seed=seed, public=public)
            for name in arguments.arm or ARMS:
                started = time.process_time()
                auc = data.test_auc(ARMS[name](arms))
                seconds = time.process_time() - started
                rows.append({"arm": name, "public_start": public, "seed": seed, "auc": auc, "cpu_s": round(seconds, 1)})
                print(f"seed {seed}  public start {public!s:5}  {name:30}  AUC {auc:.4f}  {seconds:.0f} s", flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")
    _print_table(rows)


def _print_table(rows: list[dict[str, object]]) -> None:
    print("\n| arm | public start weights | random start weights |\n|---|---|---|")
    for name in dict.fromkeys(str(row["arm"]) for row in rows):
        own = [row for row in rows if row["arm"] == name]
        cells = [_cell([row for row in own if row["public_start"] is public]) for public in (True, False)]
        print(f"| {name} | {cells[0]} | {cells[1]} |")


def _cell(rows: list[dict[str, object]]) -> str:
    values = [float(str(row["auc"])) for row in rows]
    if not values:
        return "-"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.3f} ± {spread:.3f} ({len(values)})"


if __name__ == "__main__":
    main()
