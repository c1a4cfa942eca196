"""What patient-level privacy costs: our step, Opacus' hooks and ghost clipping, and plain SGD, on the same scans.

    python -m simulation.benchmarks.training --json

The first rows are small images with four scans a patient; the others are of a hospital's size, one scan each (ghost
clipping clips scans, so only there it makes the same promise). The steps run in turn in one process; a ratio is the
median, over the turns, of processor time over that of the plain step in the same turn. Each step ends with the update
of the weights; the private ones clip by patient and add noise. Peak memory: a fresh fork, above what the process had
before its first step.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from common.terminal import JsonOption, output, print_json, run
from simulation.benchmarks.cpu_time import progress_for_people
from simulation.benchmarks.peak_memory import peak_mb
from simulation.benchmarks.training_steps import OpacusGhostStep, OpacusStep, OurStep, PlainStep
from simulation.benchmarks.training_subjects import HOSPITAL_SIZE, IMAGES_OF_28, Subject, cross_entropy


@dataclass(frozen=True)
class Row:
    """One network. ``..._ratio_to_plain``: processor time of a step over the plain step's; ghost None: another promise.

    opacus_over_ours: their quotient. trial_cpu_s: of our choice of an engine, before the first step. size: a side in
    pixels or voxels. peak_mb: memory of our step; the others' beside it.
    """

    model: str
    parameters: int
    size: int
    patients: int
    ratio_to_plain: float
    opacus_ratio_to_plain: float
    opacus_ghost_ratio_to_plain: float | None
    opacus_over_ours: float
    peak_mb: float
    plain_peak_mb: float
    opacus_peak_mb: float
    opacus_ghost_peak_mb: float | None
    trial_cpu_s: float
    engine: str
    plain_ms: float


def measure(subject: Subject, *, repeats: int) -> Row:
    """Time the steps in turn, each on its own copy of the network."""
    makers = _makers(subject)
    peaks = {name: peak_mb(maker) for name, maker in makers.items()}
    steps = {name: maker() for name, maker in makers.items()}
    for step in steps.values():
        step()
    turns = [{name: cpu_seconds(step) for name, step in steps.items()} for _ in range(repeats)]
    ratios = {name: round(median(turn[name] / turn["plain"] for turn in turns), 3) for name in steps}
    return Row(
        model=subject.model,
        parameters=sum(parameter.numel() for parameter in subject.build().parameters()),
        size=subject.size,
        patients=subject.patients,
        ratio_to_plain=ratios["ours"],
        opacus_ratio_to_plain=ratios["opacus"],
        opacus_ghost_ratio_to_plain=ratios.get("ghost"),
        opacus_over_ours=round(median(turn["opacus"] / turn["ours"] for turn in turns), 3),
        peak_mb=peaks["ours"],
        plain_peak_mb=peaks["plain"],
        opacus_peak_mb=peaks["opacus"],
        opacus_ghost_peak_mb=peaks.get("ghost"),
        trial_cpu_s=round(steps["ours"].trial_s, 2),
        engine=steps["ours"].engine,
        plain_ms=round(1000 * median(turn["plain"] for turn in turns), 2),
    )


def _makers(subject: Subject) -> dict[str, Callable[[], Any]]:
    images, labels = subject.scans()
    makers: dict[str, Callable[[], Any]] = {
        "plain": lambda: PlainStep(subject.build(), images, labels, cross_entropy),
        "ours": lambda: OurStep(
            subject.build(), images, labels, cross_entropy, patients_per_stack=subject.patients_per_stack
        ),
        "opacus": lambda: OpacusStep(subject.build(), images, labels, cross_entropy),
    }
    if subject.scans_each == 1:
        makers["ghost"] = lambda: OpacusGhostStep(subject.build(), images, labels, cross_entropy)
    return makers


def cpu_seconds(step: Callable[[], object]) -> float:
    """Return the CPU time of one call in this thread."""
    start = time.thread_time()
    step()
    return time.thread_time() - start


def training(
    *,
    repeats: Annotated[int, typer.Option(min=1, help="Turns; the median of their ratios counts.")] = 9,
    only: Annotated[str, typer.Option(help="Measure only the rows whose name begins so.")] = "",
    small: Annotated[bool, typer.Option("--small", help="Tiny inputs: shows that it runs, measures nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the cost of patient-level privacy on eleven networks; the large ones take minutes each (--only)."""
    torch.set_num_threads(1)
    subjects = [each for each in (*IMAGES_OF_28, *HOSPITAL_SIZE) if each.model.startswith(only)]
    if not subjects:
        raise typer.BadParameter(f"no row's name begins with {only[:40]!r}", param_hint="--only")
    if small:
        subjects = [replace(each, size=8, patients=3, width=4) for each in subjects]
    rows = []
    with progress_for_people() as progress:
        task = progress.add_task("networks", total=len(subjects))
        for subject in subjects:
            rows.append(measure(subject, repeats=repeats))
            progress.update(task, advance=1, refresh=True)
    if as_json:
        print_json({"rows": [asdict(row) for row in rows]})
        return
    table = Table("model", "ours / plain", "Opacus / plain", "ghost / plain", "engine", "choice, s", "MB", "plain MB")
    for row in rows:
        ghost = row.opacus_ghost_ratio_to_plain
        ratios = (
            f"{row.ratio_to_plain:.2f}",
            f"{row.opacus_ratio_to_plain:.2f}",
            "" if ghost is None else f"{ghost:.2f}",
        )
        peaks = (f"{row.peak_mb:.0f}", f"{row.plain_peak_mb:.0f}")
        table.add_row(row.model, *ratios, row.engine, f"{row.trial_cpu_s:.1f}", *peaks)
    output.print(table)


if __name__ == "__main__":
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(training)
    run(application)
