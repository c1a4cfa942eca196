"""One run, top to bottom: build or resume, open the sites, run the ServerApp over the loopback, compare, report."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from flwr.app import Context, RecordDict
from rich.console import Console

import client.app
import server.app
from client.installation.folder import SiteFolder
from client.learning.speed import Speed
from client.private_gradients.verdict import KNOWN_HERE
from client.private_gradients.verdict_folder import VerdictFolder
from client.site import Site, forget, keep_open
from client.trainer.measuring import measure_engines
from common.files import replace_atomically
from common.plan.plan import StudyPlan
from common.trust.identity import read_signing_key
from common.trust.release import WEIGHTS
from server.attempts.retries import RetryRules, RunSettings
from server.attempts.run_options import RunOptions, set_options
from server.export.package import weights_file
from server.study.events import LoggedEvents, RunEnd, RunState
from server.study.folder import Study, open_study
from server.study.progress import current_state, open_journal
from simulation.errors import RunInvalidError
from simulation.report.facts import Compared, PublicScore, Role, RunFacts
from simulation.report.page import write_report
from simulation.report.reading import read_facts
from simulation.runtime.faults import Fault
from simulation.runtime.loopback import RUN_ID, LoopbackGrid, Tap
from simulation.runtime.lying_server import LyingGrid, cheat_of
from simulation.study.comparisons import read_comparisons, run_comparisons
from simulation.study.live_display import LiveDisplay
from simulation.study.run_folder import RunFolder, read_json, write_json
from simulation.study.scenario import Scenario
from simulation.study.scorekeeping import Scorekeeper, selected
from simulation.study.watching import AllEvents, SilentEvents

# Nothing here is far away: one try after the other, and no patience with a cohort that never comes.
QUICK = RunSettings(
    cohort_wait_s=5.0, gather_s=0.5, result_timeout_s=10.0, retries=RetryRules(first_wait_s=0.05, longest_wait_s=1.0)
)

SiteOpener = Callable[[Path], Site]

_log = logging.getLogger("fedward.simulation")


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run ended with."""

    end: RunEnd
    facts: RunFacts
    report: Path


class Ending(SilentEvents):
    """Remembers how a run ended."""

    end: RunEnd | None = None

    def on_finished(self, end: RunEnd) -> None:
        """Keep it."""
        self.end = end


def run_built(
    folder: RunFolder,
    scenario: Scenario,
    *,
    console: Console,
    quiet: bool = False,
    tap: Tap | None = None,
    settings: RunSettings = QUICK,
    open_site: SiteOpener | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Finished:
    """Run what is left of a built run, compare, and write the report; safe to call again after any interruption.

    ``told`` gets a sentence for each later step. Ctrl-C finishes the round and returns with the run resumable.
    Raises: RunInvalidError, StudyFolderInvalidError (also while another process runs it), NotEnrolledError, ...
    """
    folder.require_ready()
    torch.set_num_threads(1)
    study, began_s = open_study(folder.study.path), time.monotonic()
    before_s = float(read_json(folder.progress, {"seconds": 0.0})["seconds"])
    with (
        log_to(folder.log),
        LiveDisplay(study.plan, console, quiet=quiet, seconds_before=before_s) as display,
        stop_on_interrupt() as stop,
    ):
        keeper = Scorekeeper(folder, study, display)
        events = AllEvents([LoggedEvents(), display, keeper])
        options = RunOptions(
            events=events, should_stop=stop.is_set, settings=settings, longest_poll_s=0.02, hello_timeout_s=30.0
        )
        end = run_rounds_over_loopback(folder, scenario, study.plan, options, tap=tap, open_site=open_site)
    seconds = before_s + time.monotonic() - began_s
    write_json(folder.progress, {"seconds": seconds})
    finished = end.state in {RunState.FINISHED, RunState.NOT_SCORED}
    if finished:
        told("training the models it is compared with")
        run_comparisons(folder, study.plan, scenario.comparisons, scenario.running, told)
    score = export_model(folder, study, keeper)
    facts = run_facts(folder, study.plan, scenario, keeper, score=score, seconds=seconds, is_finished=finished)
    write_report(facts, folder.report)
    return Finished(end, facts, folder.report)


def run_rounds_over_loopback(
    folder: RunFolder,
    scenario: Scenario,
    plan: StudyPlan,
    options: RunOptions,
    *,
    tap: Tap | None = None,
    open_site: SiteOpener | None = None,
    faults: Sequence[Fault] = (),
) -> RunEnd:
    """Open every site in this process and run the ServerApp over the loopback grid.

    ``open_site``: opens a site folder; only tests and benchmarks open one whose work is made up. ``faults``: more than
    the scenario has.
    Raises: what opening a site or a study raises; RunInvalidError.
    """
    ending = Ending()
    folders = {site.name: folder.site(site.name) for site in plan.sites}
    speed = Speed(patients_at_once=scenario.running.patients_at_once)
    if open_site is None:
        _choose_engines(folder, plan, speed)
    for path in folders.values():
        if open_site is None:
            keep_open(Site.open(path, speed=speed, engines=folder.engines, holds_replies=False))
        else:
            keep_open(open_site(path))
    troubles = [draft.fault() for draft in scenario.faults] + list(faults)
    grid = _grid(folder, scenario, folders, faults=troubles, tap=tap)
    set_options(folder.study.path, replace(options, events=AllEvents([options.events, ending])))
    config = {server.app.FOLDER_KEY: str(folder.study.path)}
    context = Context(run_id=RUN_ID, node_id=0, node_config={}, state=RecordDict(), run_config=dict(config))
    try:
        server.app.app(grid, context)
    except Exception:
        if ending.end is None:
            raise
        _log.warning("the run ended early: %s", ending.end.sentence)
    finally:
        grid.close()
        for path in folders.values():
            forget(path)
    if ending.end is None:
        raise RunInvalidError(f"{folder.path}: the run gave no end; this is a bug")
    return ending.end


def _choose_engines(folder: RunFolder, plan: StudyPlan, speed: Speed) -> None:
    """Try engines before the first order, once for all hospitals: they differ in scans, and none is looked at."""
    largest = max(plan.sites, key=lambda site: site.labelled_patients + site.unlabelled_patients)
    _log.info("measuring: engines are tried on made-up patients")
    measure_engines(plan, largest, speed, VerdictFolder(folder.engines, KNOWN_HERE))


def _grid(
    folder: RunFolder, scenario: Scenario, folders: Mapping[str, Path], *, faults: Sequence[Fault], tap: Tap | None
) -> LoopbackGrid:
    """Return the loopback, honest or not."""
    workers = scenario.running.workers
    if not scenario.running.lie:
        return LoopbackGrid(client.app.app, folders, workers=workers, faults=faults, tap=tap)
    cheat = cheat_of(read_signing_key(folder.study.order_key), folders)
    return LyingGrid.telling(
        scenario.running.lie, cheat, client.app.app, folders, workers=workers, faults=faults, tap=tap
    )


def export_model(folder: RunFolder, study: Study, keeper: Scorekeeper) -> PublicScore:
    """Write the model of now as safetensors, by parameter name, and return its score on the test images."""
    journal = open_journal(study)
    try:
        parameters = selected(study.plan, current_state(study, journal))
    finally:
        journal.close()
    metadata = {"plan": study.plan.digest(), "network": study.plan.network.name}
    replace_atomically(folder.study.model / WEIGHTS, weights_file(study.network, parameters, metadata))
    return keeper.judge(parameters, curve=True)


def run_facts(
    folder: RunFolder,
    plan: StudyPlan,
    scenario: Scenario,
    keeper: Scorekeeper,
    *,
    score: PublicScore,
    seconds: float,
    is_finished: bool,
) -> RunFacts:
    """Collect everything the report needs."""
    promise = "no privacy" if plan.privacy.epsilon is None else f"epsilon {plan.privacy.epsilon:g}"
    note = f"this run: {len(plan.sites)} hospitals, secure aggregation, {promise}"
    itself = Compared("federation", "All hospitals together", Role.FEDERATION, score.estimate, note)
    return read_facts(
        folder.study,
        plan,
        {site.name: SiteFolder(folder.site(site.name)) for site in plan.sites},
        test=score,
        test_by_round=keeper.scores,
        compared=(itself, *read_comparisons(folder, plan, scenario.comparisons)),
        seconds=seconds,
        is_finished=is_finished,
    )


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Send what our parts log to a file of the run instead of the terminal."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    ours = logging.getLogger("fedward")
    level, spreads = ours.level, ours.propagate
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        ours.propagate = spreads
        handler.close()


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C sets; the second one interrupts at once. In other threads: never set."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def asked(_signal: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    former = signal.signal(signal.SIGINT, asked)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, former)
