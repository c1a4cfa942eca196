"""The two runtimes of ``simulation.benchmarks.rounds``: the same study on our loopback and on Flower's Ray.

They take turns: while Ray runs a round, the loopback waits in a process of its own, and the other way round. So a busy
minute of the machine hits both, and neither disturbs the other.
"""

import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch

from common.plan.reading import read_plan
from server.attempts.run_options import RunOptions, set_options
from server.study.events import RoundEnd
from simulation.runtime.made_up_work import empty_update, made_up_site
from simulation.study.run_folder import RunFolder
from simulation.study.running import QUICK, run_rounds_over_loopback
from simulation.study.scenario import Scenario
from simulation.study.scenario_reading import parse_scenario
from simulation.study.site_building import build_bare_run
from simulation.study.watching import SilentEvents

RAY_START_S = 180.0  # actors need a while until the first site can say who it is
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Lap:
    """One round, or what came before the first was done: wall-clock and processor seconds (None: unknown)."""

    seconds: float
    cpu_seconds: float | None


@dataclass(frozen=True)
class Laps:
    """All rounds of one run. ``laps[0]``: from opening the study to the end of its first round."""

    laps: list[Lap]

    @property
    def start_s(self) -> float:
        """Seconds until the first round was done."""
        return self.laps[0].seconds

    @property
    def ms_per_round(self) -> float:
        """Median of the rounds after the first, in milliseconds."""
        return 1000 * median(lap.seconds for lap in self.laps[1:])

    @property
    def cpu_ms_per_round(self) -> float | None:
        """The same for processor time, None where the system does not say."""
        known = [lap.cpu_seconds for lap in self.laps[1:] if lap.cpu_seconds is not None]
        return 1000 * median(known) if known else None


@dataclass
class Stopwatch(SilentEvents):
    """Times each round; between two rounds ``pause`` is called, and its time counts for neither."""

    pause: Callable[[Lap], None]
    cpu_clock: Callable[[], float | None]
    laps: list[Lap] = field(default_factory=list)
    _began: tuple[float, float | None] = (0.0, None)

    def start(self) -> None:
        """Begin the next lap now."""
        self._began = (time.perf_counter(), self.cpu_clock())

    def on_round(self, end: RoundEnd) -> None:
        """End a lap."""
        del end
        seconds, cpu_s = time.perf_counter() - self._began[0], self.cpu_clock()
        spent = cpu_s - self._began[1] if cpu_s is not None and self._began[1] is not None else None
        self.laps.append(Lap(seconds, spent))
        self.pause(self.laps[-1])
        self.start()


def radiograph_study(phase: Mapping[str, Any], *, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study part of a scenario: small radiographs, two classes, distributed noise, one phase."""
    return {
        "task": {
            "kind": "classification",
            "classes": ["normal", "consolidation"],
            "modalities": ["DX"],
            "dimensions": 2,
        },
        "image": {"size_px": [32, 32], "intensity": "percentiles"},
        "privacy": {"noise": "distributed", "epsilon": 8.0, "delta": 1e-4},
        "evaluation": dict(evaluation),
        "phases": [dict(phase)],
    }


def bare_scenario(sites: int, rounds: int) -> Scenario:
    """Return a study without scans: 24 000 weights, whole network, no held-out patients."""
    phase = {"name": "only", "rounds": rounds, "trainable": "all", "labelled_sampling_rate": 0.2}
    document: dict[str, Any] = {
        "format": "fedward-scenario/1",
        "name": "bare",
        "title": "Rounds without training",
        "hospitals": {"source": "phantoms", "sites": sites, "size_px": 32},
        "study": radiograph_study(phase, evaluation={"held_out": False}),
        "running": {"workers": 8},
    }
    return parse_scenario(document, "the benchmark")


def measure(
    sites: int, rounds: int, watch: Stopwatch, run: Callable[[RunFolder, Scenario, RunOptions], object]
) -> Laps:
    """Build a study of ``sites`` sites, run it, and return its laps."""
    with tempfile.TemporaryDirectory() as path:
        folder, scenario = RunFolder(Path(path)), bare_scenario(sites, rounds)
        build_bare_run(folder, scenario, {f"hospital-{number}": (10, 10) for number in range(1, sites + 1)})
        watch.start()
        run(folder, scenario, RunOptions(events=watch, settings=QUICK, longest_poll_s=0.02))
    return Laps(watch.laps)


def on_loopback(folder: RunFolder, scenario: Scenario, options: RunOptions) -> None:
    """Run on our loopback grid."""
    plan = read_plan(folder.study.plan)
    run_rounds_over_loopback(folder, scenario, plan, options, open_site=lambda path: made_up_site(path, empty_update))


def on_ray(folder: RunFolder, scenario: Scenario, options: RunOptions) -> None:
    """Run on Flower's simulation runtime; imported here, because Ray is a development dependency."""
    from simulation.runtime.ray_runtime import run_on_ray  # noqa: PLC0415 (optional extra)

    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 would lose its turns on a busy machine
    patient = replace(options.settings, cohort_wait_s=RAY_START_S)
    set_options(folder.study.path, replace(options, settings=patient, hello_timeout_s=RAY_START_S))
    sites = [folder.site(f"hospital-{number}") for number in range(1, scenario.hospitals.sites + 1)]
    run_on_ray(folder.study.path, sites, open_site=lambda path: made_up_site(path, empty_update))


class LoopbackInTurns:
    """A run on the loopback in a process of its own, which does one round each time it is asked to."""

    def __init__(self, sites: int, rounds: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_rounds_when_asked, args=(theirs, sites, rounds), daemon=True)
        self._process.start()
        theirs.close()
        self._left = rounds
        self.laps: list[Lap] = []
        self._take()

    @property
    def process_id(self) -> int | None:
        """Of the other process."""
        return self._process.pid

    def round(self) -> None:
        """Let it do its next round, and wait for that; nothing where all are done."""
        if self._left:
            self._pipe.send(None)
            self._take()

    def finish(self) -> Laps:
        """Do what is left, and return everything."""
        while self._left:
            self.round()
        self._pipe.send(None)
        self._process.join()
        return Laps(self.laps)

    def _take(self) -> None:
        """Raises: EOFError where the other process failed; it has said why."""
        self.laps.append(self._pipe.recv())
        self._left -= 1


def _rounds_when_asked(pipe: Connection, sites: int, rounds: int) -> None:
    """The other process: after each round say how long it took, and wait."""
    prepare_process()

    def pause(lap: Lap) -> None:
        pipe.send(lap)
        pipe.recv()

    measure(sites, rounds, Stopwatch(pause, time.process_time), on_loopback)


@dataclass(frozen=True, slots=True)
class InTurns:
    """Our laps and Ray's, measured round by round in turn; ``why_no_ray`` where there are none."""

    ours: Laps
    ray: Laps | None
    why_no_ray: str = ""


def measure_in_turns(sites: int, rounds: int, *, with_ray: bool) -> InTurns:
    """Measure both; where Ray fails (it gives itself 30 s to start, too little on a crowded machine) only ours."""
    ours = LoopbackInTurns(sites, rounds)
    if not with_ray:
        return InTurns(ours.finish(), None, "not asked for")

    def our_turn(_: Lap) -> None:
        ours.round()

    watch = Stopwatch(our_turn, lambda: tree_cpu_s(but=ours.process_id))
    try:
        theirs = measure(sites, rounds, watch, on_ray)
    except (RuntimeError, ImportError) as error:
        return InTurns(ours.finish(), None, f"failed: {error}")
    return InTurns(ours.finish(), theirs)


def prepare_process() -> None:
    """One thread for arithmetic, and no word below an error: for both sides alike."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)


def tree_cpu_s(*, but: int | None = None) -> float | None:
    """Return the processor seconds of this process and its descendants, without the process ``but`` and its own.

    Source: proc(5), /proc/<pid>/stat: fields 4 (parent), 14 and 15 (user and system time in ticks).
    """
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        parents[int(path.parent.name)], ticks[int(path.parent.name)] = int(fields[1]), int(fields[11]) + int(fields[12])

    def is_ours(process: int) -> bool:
        while process in parents and process != but:
            if process == os.getpid():
                return True
            process = parents[process]
        return False

    return sum(ticks[process] for process in ticks if is_ours(process)) / os.sysconf("SC_CLK_TCK") if ticks else None
