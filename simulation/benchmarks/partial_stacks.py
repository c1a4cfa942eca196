"""What a step costs when few patients are sampled, and what the choice of its engine costs before.

    python -m simulation.benchmarks.partial_stacks --json

Processor time of one private step (gradients, clip, sum) of n patients with one scan each, over n times the time for
each of the most patients: 1 means that nobody is computed who is not there. The numbers take turns, and a ratio is the
median over turns; a step of few is the mean of several, so that the machine's other work weighs alike. The choice is
made as a hospital makes it before its first order: on made-up patients, within 20 s.
"""

import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Annotated, Final

import torch
import typer
from rich.table import Table
from torch import Tensor, nn

from client.private_gradients.budget import Budget, Spending
from client.private_gradients.clipping import LatticeSum
from client.private_gradients.engine import PrivateGradient
from client.private_gradients.stacks import PatientRows
from client.private_gradients.verdict import RememberedVerdicts
from common.networks.parameters import layout
from common.networks.registry import build_network
from common.terminal import JsonOption, output, print_json, run
from simulation.benchmarks.training_subjects import cross_entropy

AT_ONCE: Final = 16  # as a site has it
SAMPLED: Final = (1, 2, 3, 5, 8, 13, 17, 32, 64)
PATIENTS_A_TURN: Final = 16  # at least, before a mean counts


@dataclass(frozen=True)
class Subject:
    """A network and the size of its images."""

    network: str
    dimensions: int
    width: int
    size: int

    def build(self) -> nn.Module:
        """Build the network with start weights; the head is not zero, so that every layer has a gradient."""
        return build_network(
            self.network, dimensions=self.dimensions, classes=2, width=self.width, blocks=1, zero_head=False
        )

    def patient(self, seed: int) -> PatientRows:
        """Return a patient with one random scan."""
        generator = torch.Generator().manual_seed(seed)
        image: Tensor = torch.randn(1, 1, *(self.size,) * self.dimensions, generator=generator)
        return PatientRows(image, (torch.zeros(1, dtype=torch.int64),), torch.ones(1))


SUBJECTS: Final = (Subject("residual", 2, 32, 112), Subject("unet", 3, 8, 32), Subject("small_cnn", 2, 32, 28))


@dataclass(frozen=True)
class Row:
    """``ratios``: sampled patients -> cost over that many times a patient's cost among the most; ``patient_ms``."""

    model: str
    size: int
    parameters: int
    engine: str
    trial_cpu_s: float
    patient_ms: float
    ratios: dict[int, float]


def measure(subject: Subject, sampled: tuple[int, ...], *, repeats: int) -> Row:
    """Choose, then time steps of the given numbers of patients in turn."""
    network = subject.build()
    order = layout(network)
    gradient = PrivateGradient(network, order, None, RememberedVerdicts())
    began_s = time.process_time()
    budget = Spending(Budget())
    gradient.measure(subject.patient(0), cross_entropy, at_once=AT_ONCE, most_rows=1, spending=budget)
    trial_s = time.process_time() - began_s
    patients = [subject.patient(seed) for seed in range(max(sampled))]
    turns = [
        {count: _patient_s(gradient, patients[:count], order.num_parameters) for count in sampled}
        for _ in range(repeats)
    ]
    return Row(
        model=f"{subject.network} {subject.dimensions}-D",
        size=subject.size,
        parameters=order.num_parameters,
        engine=", ".join(gradient.engine_names),
        trial_cpu_s=round(trial_s, 2),
        patient_ms=round(1000 * median(turn[max(sampled)] for turn in turns), 2),
        ratios={count: round(median(turn[count] / turn[max(sampled)] for turn in turns), 3) for count in sampled},
    )


def _patient_s(gradient: PrivateGradient, patients: list[PatientRows], num_parameters: int) -> float:
    """Return the mean time for each patient of steps with these, of so many steps that some patients went through."""
    steps = max(1, PATIENTS_A_TURN // len(patients))
    return sum(_step_s(gradient, patients, num_parameters) for _ in range(steps)) / (steps * len(patients))


def _step_s(gradient: PrivateGradient, patients: list[PatientRows], num_parameters: int) -> float:
    start = time.process_time()
    total = LatticeSum(num_parameters, step=2.0**-24, device=torch.device("cpu"))
    gradient.add(patients, cross_entropy, clipping_norm=1.0, total=total, at_once=AT_ONCE, most_rows=1)
    return time.process_time() - start


def partial_stacks(
    *,
    repeats: Annotated[int, typer.Option(min=1, help="Turns; the median of their ratios counts.")] = 5,
    small: Annotated[bool, typer.Option("--small", help="Tiny inputs: shows that it runs, measures nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure what few sampled patients cost, for three networks (about five minutes)."""
    torch.set_num_threads(1)
    subjects = [Subject("small_cnn", 2, 4, 8)] if small else list(SUBJECTS)
    rows = [measure(subject, SAMPLED[:3] if small else SAMPLED, repeats=repeats) for subject in subjects]
    if as_json:
        print_json({"rows": [asdict(row) for row in rows]})
        return
    numbers = list(rows[0].ratios)
    table = Table("model", "size", "engine", "choice, s", "ms a patient", *(f"{count}" for count in numbers))
    for row in rows:
        ratios = (f"{row.ratios[count]:.2f}" for count in numbers)
        table.add_row(row.model, str(row.size), row.engine, f"{row.trial_cpu_s:.1f}", f"{row.patient_ms:.1f}", *ratios)
    output.print(table)


if __name__ == "__main__":
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(partial_stacks)
    run(application)
