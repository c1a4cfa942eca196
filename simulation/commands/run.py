"""``fedward-sim run``: a whole study on this machine, from scans to the report."""

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from common.encoders.card import read_card
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from common.terminal import JsonOption, NowAndThen, errors, output, print_json
from server.commands.plan_encoder import shelf_near
from server.errors import StudyStoppedError
from server.study.events import RunState
from simulation.errors import ScenarioInvalidError
from simulation.report.figures import figures
from simulation.report.words import amount, duration
from simulation.study.comparisons import ATLAS
from simulation.study.planned_scenario import write_scenario
from simulation.study.run_folder import RunFolder
from simulation.study.running import Finished, run_built
from simulation.study.scenario import Scenario
from simulation.study.scenario_reading import find_scenario, read_scenario
from simulation.study.site_building import Watcher, build_run

DRAWN = (
    "drawn findings stood for the plan's classes: the score says whether such a plan learns from so many patients, not "
    "how well it will do on your scans; --data FILE.npz tries it on images of your own"
)
GOOD_ENDS = frozenset({RunState.FINISHED, RunState.NOT_SCORED, RunState.STOPPED})


def run(
    scenario: Annotated[
        str, typer.Argument(help="A scenario file (TOML), or the name of a shipped one, such as demo.")
    ] = "",
    *,
    plan: Annotated[
        Path | None,
        typer.Option("--from", help="In place of a scenario: try this study plan before anybody signs it."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: runs/NAME-TIME.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The .npz archive of the scenario, if it lies elsewhere.", show_default=False)
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="The encoder (ONNX) of the scenario, if it lies elsewhere.", show_default=False)
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="The encoder's card (TOML), if it lies elsewhere.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a whole study: hospitals, keys, plan, approvals, private rounds, comparisons, report.

    Ctrl-C finishes the round; `--resume` goes on, also after a crash. With `--from study.toml` the plan is tried as it
    is, phases and noise, by as many hospitals with as many patients: on drawn scans, or on those of `--data`.

    Example: `fedward-sim run demo --out runs/demo`
    Example: `fedward-sim run --from federation/studies/lungs-2026/study.toml`
    """
    began_s = time.monotonic()
    if resume and out is None:
        raise ScenarioInvalidError("--resume needs --out: the folder of the run to go on with")
    if bool(scenario) == (plan is not None):
        raise ScenarioInvalidError("name a scenario, or a plan with --from; one of the two")
    with tempfile.TemporaryDirectory() as scratch:
        file = find_scenario(scenario) if plan is None else Path(scratch) / f"{plan.resolve().parent.name}.toml"
        folder = RunFolder(out or Path("runs") / f"{file.stem}-{time.strftime('%Y%m%d-%H%M%S')}")
        if resume and folder.ready.exists():
            chosen = read_scenario(folder.scenario)
        else:
            if resume:
                folder.clear_half_built()
            if plan is not None:
                tried = read_plan(plan)
                write_scenario(tried, file, archive=data, encoder=_of_plan(tried, plan, encoder, card))
            chosen = read_scenario(file)
            folder.path.mkdir(parents=True, exist_ok=True)
            _build(folder, chosen, file, data, _encoder(chosen, file, encoder, card), quiet=as_json)
    finished = run_built(folder, chosen, console=errors, quiet=as_json, told=lambda text: _tell(text, quiet=as_json))
    answer = summary(finished, seconds=time.monotonic() - began_s)
    print_json(answer) if as_json else _show(finished, answer, folder)
    if plan is not None and chosen.hospitals.source == "phantoms":
        _tell(DRAWN, quiet=as_json)
    if finished.end.state not in GOOD_ENDS:
        raise StudyStoppedError(f"{finished.end.sentence}; the report says how far it came: {finished.report}")


def summary(finished: Finished, *, seconds: float) -> dict[str, Any]:
    """Return the figures of a run as plain values: what ``--json`` prints.

    ``epsilon`` is what the patients spent who spent most, ``epsilon_promised`` what the plan promises; None without
    privacy. ``bytes_out_per_site``: site -> bytes that left it, all kinds together. ``dice_atlas_only``: of the
    hospitals' mean label map, looking at no scan (``client.final_model.atlas``); those of Dice: for a segmentation.
    ``structures``: HD95, surface Dice, volumes and lesions of each (``client.final_model.structure_measures``).
    """
    facts, numbers = finished.facts, figures(finished.facts)
    spent = [value for name, value in numbers.items() if name.startswith("spent.")]
    score = facts.test.estimate if facts.test else None
    dice = facts.test.dice if facts.test else {}
    atlas = next((row.estimate.value for row in facts.compared if row.key == ATLAS), None)
    segmented = {
        "dice": score.value if score else None,
        "dice_by_class": {name: estimate.value for name, estimate in dice.items()},
        "dice_atlas_only": atlas,
        "structures": {name: asdict(found) for name, found in facts.test.structures.items()} if facts.test else {},
    }
    return (segmented if dice else {}) | {
        "state": finished.end.state.value,
        "auc": score.value if score and not dice else None,
        "auc_interval": [score.low, score.high] if score and not dice else None,
        "interval": [score.low, score.high] if score else None,
        "measure": facts.test.measure if facts.test else None,
        "epsilon": max(spent) if spent else None,
        "epsilon_promised": facts.plan.privacy.epsilon,
        "delta": facts.plan.privacy.delta,
        "rounds": int(numbers["rounds.applied"]),
        "attempts": int(numbers["attempts"]),
        "sites": len(facts.sites),
        "bytes_out_per_site": {site: int(numbers[f"sent.{site}.bytes"]) for site in facts.sites},
        "compared": {
            row.key: {"value": row.estimate.value, "interval": [row.estimate.low, row.estimate.high]}
            for row in facts.compared
        },
        "seconds": seconds,
        "seconds_training": facts.seconds,
        "report": str(finished.report),
        "plan_digest": facts.plan.digest(),
    }


def _of_plan(plan: StudyPlan, file: Path, encoder: Path | None, card: Path | None) -> tuple[Path, Path] | None:
    """Return encoder and card of a plan: as given, else from the federation folder that the plan lies in.

    Raises: ScenarioInvalidError for one without the other, or for another encoder than the plan's.
    """
    named = plan.network.encoder
    if (encoder is None) != (card is None):
        raise ScenarioInvalidError("with --from, --encoder and --card belong together: give both, or neither")
    if named is None:
        if encoder is not None:
            raise ScenarioInvalidError("the plan names no encoder: leave --encoder and --card out")
        return None
    if encoder is None or card is None:
        shelf = shelf_near(file)
        encoder, card = shelf.file(named.file), shelf.card_file(named.file)
        return (encoder, card) if encoder.exists() else None
    if read_card(card).digest() != named.card:
        raise ScenarioInvalidError(f"{card}: not the card that the plan names ({named.card[:12]}…)")
    return encoder, card


def _encoder(scenario: Scenario, file: Path, encoder: Path | None, card: Path | None) -> tuple[Path, Path] | None:
    """Return where encoder and card of a scenario lie: as given now, else as the scenario says."""
    named = scenario.encoder_paths(file)
    if named is None and (encoder or card):
        raise ScenarioInvalidError(
            'the scenario has no encoder: write name = "encoder" in [study.network], and [study.network.encoder]'
        )
    return named and (encoder or named[0], card or named[1])


def _build(
    folder: RunFolder,
    scenario: Scenario,
    file: Path,
    data: Path | None,
    encoder: tuple[Path, Path] | None,
    *,
    quiet: bool,
) -> None:
    archive = data or (scenario.archive_path(file) if scenario.hospitals.source == "archive" else None)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, disable=quiet or not errors.is_terminal) as bar:
        current = bar.add_task("starting", total=None)

        def step(words: str, pieces: int) -> None:
            nonlocal current
            bar.update(current, visible=False)
            current = bar.add_task(words, total=pieces or None)
            if not errors.is_terminal:
                _tell(words, quiet=quiet)

        lines = NowAndThen(quiet=quiet)

        def reached(pieces: int) -> None:
            bar.update(current, completed=pieces)
            lines.tell(f"{bar.tasks[-1].description}: {pieces} of {int(bar.tasks[-1].total or pieces)}")

        watcher = Watcher(step=step, reached=reached)
        build_run(folder, scenario, file, archive=archive, encoder=encoder, watcher=watcher)


def _tell(text: str, *, quiet: bool) -> None:
    if not quiet:
        errors.print(escape(text))


def _show(finished: Finished, answer: dict[str, Any], folder: RunFolder) -> None:
    facts = finished.facts
    table = Table(title=escape(facts.plan.study.title), title_justify="left", box=None, header_style="dim")
    for title in ("model", str(answer["measure"]), "95 % interval"):
        table.add_column(title, justify="left" if title == "model" else "right")
    for row in facts.compared:
        style = "bold green" if row.key == "federation" else ""
        between = f"{row.estimate.low:.3f} to {row.estimate.high:.3f}"
        table.add_row(escape(row.label), f"{row.estimate.value:.3f}", between, style=style)
    output.print(table)
    most = max(answer["bytes_out_per_site"].values(), default=0)
    promise = "no privacy was promised"
    if answer["epsilon"] is not None:
        promise = f"epsilon {answer['epsilon']:.2f} of {answer['epsilon_promised']:g} spent, delta {answer['delta']:g}"
    output.print(
        f"{answer['rounds']} rounds in {answer['attempts']} attempts, {promise}, "
        f"{amount(most)} left a hospital at most, {duration(answer['seconds'])}"
    )
    if finished.end.state is RunState.STOPPED:
        output.print(f"stopped; go on with: fedward-sim run {folder.scenario} --out {folder.path} --resume")
    output.print(f"report: {finished.report}", markup=False)
    words = f"{folder.path}/study --folder {folder.path} --output DIR"
    output.print(f"the model as files (ONNX, card): fedward-server export {words}", markup=False)
