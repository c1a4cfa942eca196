"""What patient-level privacy costs: our step, Opacus' hooks with index_add, and plain SGD, on the same scans.

    python -m simulation.benchmarks.training --json

The three steps run in turn in one process; a ratio is the median, over the turns, of CPU time over that of the plain
step in the same turn. Each step ends with the update of the weights; the private ones clip by patient and add noise.
Peak memory: a fresh fork, above what the process had before its first step.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Annotated, Any, Final

import torch
import typer
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from common.networks.registry import build_network
from common.terminal import JsonOption, output, print_json, run
from simulation.benchmarks.cpu_time import progress_for_people
from simulation.benchmarks.peak_memory import peak_mb
from simulation.benchmarks.training_steps import OpacusStep, OurStep, PlainStep

SCANS: Final = 4  # a patient, as in the design table


@dataclass(frozen=True)
class Subject:
    """A network and the scans of one step. ``patients_per_stack`` bounds our memory."""

    model: str
    network: str
    dimensions: int
    width: int
    size: int
    patients: int
    patients_per_stack: int
    blocks: int = 1

    def build(self) -> nn.Module:
        """Build the network with start weights; the head is not zero, so that every layer has a gradient."""
        return build_network(
            self.network,
            dimensions=self.dimensions,
            classes=2,
            width=self.width,
            blocks=self.blocks,
            zero_head=False,
        )

    def scans(self) -> tuple[Tensor, Tensor]:
        """Return random scans (patients, SCANS, 1, *size) and their labels."""
        size = (self.size,) * self.dimensions
        images = torch.randn(self.patients, SCANS, 1, *size, generator=torch.Generator().manual_seed(0))
        return images, (images.mean(tuple(range(2, images.dim()))) > 0).long()


SUBJECTS: Final = (
    Subject("small_cnn", "small_cnn", dimensions=2, width=32, size=28, patients=16, patients_per_stack=8),
    Subject("residual", "residual", dimensions=2, width=32, size=28, patients=8, patients_per_stack=8, blocks=2),
    Subject("unet", "unet", dimensions=2, width=16, size=64, patients=8, patients_per_stack=4),
    Subject("cnn_3d", "small_cnn", dimensions=3, width=8, size=28, patients=8, patients_per_stack=4),
)


@dataclass(frozen=True)
class Row:
    """One network. ``ratio_to_plain`` and ``opacus_ratio_to_plain``: CPU time of a step over the plain step's.

    opacus_over_ours: their quotient. peak_mb: memory of our step; the other two beside it. engine: chosen by itself.
    """

    model: str
    ratio_to_plain: float
    opacus_ratio_to_plain: float
    opacus_over_ours: float
    peak_mb: float
    plain_peak_mb: float
    opacus_peak_mb: float
    engine: str
    parameters: int
    patients: int
    plain_ms: float


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return one loss for each row: the mean over pixels for a segmentation, where each pixel has the scan's label."""
    labels = labels.view(-1, *[1] * (outputs.dim() - 2)).expand(outputs.shape[0], *outputs.shape[2:])
    return functional.cross_entropy(outputs, labels, reduction="none").reshape(len(outputs), -1).mean(1)


def measure(subject: Subject, *, repeats: int, memory: bool = True) -> Row:
    """Time the three steps in turn, each on its own copy of the network."""
    images, labels = subject.scans()
    makers: dict[str, Callable[[], Any]] = {
        "plain": lambda: PlainStep(subject.build(), images, labels, cross_entropy),
        "ours": lambda: OurStep(
            subject.build(), images, labels, cross_entropy, patients_per_stack=subject.patients_per_stack
        ),
        "opacus": lambda: OpacusStep(subject.build(), images, labels, cross_entropy),
    }
    peaks = {name: peak_mb(maker) if memory else 0.0 for name, maker in makers.items()}
    steps = {name: maker() for name, maker in makers.items()}
    for step in steps.values():
        step()
    turns = [{name: cpu_seconds(step) for name, step in steps.items()} for _ in range(repeats)]
    ours, opacus = (median(turn[name] / turn["plain"] for turn in turns) for name in ("ours", "opacus"))
    return Row(
        model=subject.model,
        ratio_to_plain=round(ours, 3),
        opacus_ratio_to_plain=round(opacus, 3),
        opacus_over_ours=round(opacus / ours, 3),
        peak_mb=peaks["ours"],
        plain_peak_mb=peaks["plain"],
        opacus_peak_mb=peaks["opacus"],
        engine=steps["ours"].engine,
        parameters=sum(parameter.numel() for parameter in subject.build().parameters()),
        patients=subject.patients,
        plain_ms=round(1000 * median(turn["plain"] for turn in turns), 2),
    )


def cpu_seconds(step: Callable[[], object]) -> float:
    """Return the CPU time of one call in this thread."""
    start = time.thread_time()
    step()
    return time.thread_time() - start


def training(
    *,
    repeats: Annotated[int, typer.Option(min=1, help="Turns; the median of their ratios counts.")] = 9,
    small: Annotated[bool, typer.Option("--small", help="Tiny inputs: shows that it runs, measures nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the cost of patient-level privacy on four networks (about two minutes)."""
    torch.set_num_threads(1)
    subjects = [replace(each, size=8, patients=3, width=4) for each in SUBJECTS] if small else list(SUBJECTS)
    rows = []
    with progress_for_people() as progress:
        task = progress.add_task("networks", total=len(subjects))
        for subject in subjects:
            rows.append(measure(subject, repeats=repeats))
            progress.update(task, advance=1, refresh=True)
    if as_json:
        print_json({"rows": [asdict(row) for row in rows]})
        return
    table = Table("model", "ours / plain", "Opacus / plain", "Opacus / ours", "engine", "MB", "plain MB", "Opacus MB")
    for row in rows:
        ratios = (row.ratio_to_plain, row.opacus_ratio_to_plain, row.opacus_over_ours)
        peaks = (row.peak_mb, row.plain_peak_mb, row.opacus_peak_mb)
        table.add_row(row.model, *(f"{ratio:.2f}" for ratio in ratios), row.engine, *(f"{peak:.0f}" for peak in peaks))
    output.print(table)


if __name__ == "__main__":
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(training)
    run(application)
