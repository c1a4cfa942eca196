"""How much of a real training round is not training: the control plane's share.

Everything of ``simulation.benchmarks.rounds`` with real work: drawn scans through ingest, private training of the whole
network, held-out evaluation. Sites work one after the other in one thread, so that times add up:

    share = 1 - (training + evaluating + masking) / the round

once by the wall clock (waiting for the disk included) and once by processor time (which other work hardly disturbs). A
round here takes a second; real ones take minutes to hours, with the same control plane, so their share is smaller.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import client.secagg.steps
from client.learning.training import PhaseTraining
from client.trainer.study_training import StudyTraining
from server.attempts.run_options import RunOptions
from simulation.benchmarks.rounds_timed import Lap, Stopwatch, radiograph_study
from simulation.study.run_folder import RunFolder
from simulation.study.running import QUICK, run_rounds_over_loopback
from simulation.study.scenario_reading import parse_scenario
from simulation.study.site_building import build_run

PATIENTS = 150
PLANNED_ROUNDS = 40  # of which a few are run: a plan of few rounds would be near its ceiling, and account at each
CPU = "cpu_s"
PARTS: dict[str, tuple[Any, str]] = {
    "training_s": (PhaseTraining, "begin_round"),
    "evaluating_s": (StudyTraining, "_score"),
    "masking_s": (client.secagg.steps, "mask_vector"),
}


@dataclass(frozen=True, slots=True)
class RealRound:
    """Medians over ``rounds`` rounds, all sites together, in seconds; a share is what is in none of the parts.

    Parts and ``seconds`` by the wall clock; ``cpu_seconds`` and ``control_plane_cpu_share`` in processor time.
    """

    sites: int
    patients_per_site: int
    rounds: int
    seconds: float
    cpu_seconds: float
    training_s: float
    evaluating_s: float
    masking_s: float
    control_plane_share: float
    control_plane_cpu_share: float


def real_scenario(rounds: int = PLANNED_ROUNDS) -> dict[str, Any]:
    """Return a small private study: 4 hospitals of 150 patients, whole network, evaluation in each round."""
    phase = {"name": "only", "rounds": rounds, "trainable": "all", "labelled_sampling_rate": 0.5, "views_per_scan": 2}
    return {
        "format": "fedward-scenario/1",
        "name": "real",
        "title": "A round with its training",
        "hospitals": {"source": "phantoms", "sites": 4, "patients": PATIENTS, "size_px": 32, "test_patients": 50},
        "study": radiograph_study(phase, evaluation={"every_rounds": 1, "epsilon": 8.0}),
        "running": {"workers": 0},
    }


def measure_real_round(rounds: int = 6) -> RealRound:
    """Build the small study, run it, and return where the time of a round went. Cost: about a minute."""
    spent = dict.fromkeys((*PARTS, CPU), 0.0)
    seen: list[dict[str, float]] = []

    def note(_: Lap) -> None:
        seen.append(dict(spent))
        spent.update(dict.fromkeys(spent, 0.0))

    watch = Stopwatch(note, time.process_time)
    with tempfile.TemporaryDirectory() as path, ExitStack() as stack:
        folder, scenario = RunFolder(Path(path) / "run"), parse_scenario(real_scenario(), "the benchmark")
        file = Path(path) / "scenario.toml"
        file.touch()
        plan = build_run(folder, scenario, file)
        for part, (owner, name) in PARTS.items():
            stack.enter_context(_timed(owner, name, spent, part))
        watch.start()
        enough = RunOptions(events=watch, should_stop=lambda: len(seen) > rounds, settings=QUICK, longest_poll_s=0.02)
        run_rounds_over_loopback(folder, scenario, plan, enough)
    return _summary(watch.laps[1:], seen[1:])


def _summary(laps: list[Lap], seen: list[dict[str, float]]) -> RealRound:
    both = list(zip(laps, seen, strict=True))
    shares = [1 - sum(parts[part] for part in PARTS) / lap.seconds for lap, parts in both]
    cpu = [(lap.cpu_seconds or 0.0, parts[CPU]) for lap, parts in both]
    return RealRound(
        sites=4,
        patients_per_site=PATIENTS,
        rounds=len(laps),
        seconds=median(lap.seconds for lap in laps),
        cpu_seconds=median(whole for whole, _ in cpu),
        control_plane_share=median(shares),
        control_plane_cpu_share=median(1 - parts / whole if whole else 0.0 for whole, parts in cpu),
        **{part: median(parts[part] for parts in seen) for part in PARTS},
    )


@contextmanager
def _timed(owner: Any, name: str, spent: dict[str, float], part: str) -> Iterator[None]:
    """Add the time in ``owner.name`` to ``spent[part]``, its processor time to ``spent[CPU]``, inside the block."""
    original: Callable[..., Any] = getattr(owner, name)

    def watched(*args: Any, **named: Any) -> Any:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        try:
            return original(*args, **named)
        finally:
            spent[part] += time.perf_counter() - began_s
            spent[CPU] += time.process_time() - began_cpu_s

    setattr(owner, name, watched)
    try:
        yield
    finally:
        setattr(owner, name, original)


def as_json(real: RealRound) -> dict[str, Any]:
    """Return it as plain values."""
    return asdict(real)
