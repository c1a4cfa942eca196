"""How the gradients of patients with equally many rows are computed: by which engine, and how many side by side."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from client.private_gradients.clipping import LatticeSum
from client.private_gradients.problem import Engine, Problem
from client.private_gradients.stacks import PatientStack


@dataclass(frozen=True)
class Way:
    """An engine, whether in bfloat16, and the public sizes of the parts in which patients go through it.

    ``patients``: the most that go side by side; ``smaller``: other sizes, in which a gradient was shown to be the same
    to the last bit, so that nobody's hangs on how many were sampled. Without them all parts have one size.
    """

    name: str
    engine: Engine
    patients: int
    autocast: bool
    smaller: tuple[int, ...] = ()

    def within(self, most: int) -> "Way | None":
        """Return the way with its sizes up to ``most``; None if it has none so small."""
        sizes = [size for size in (self.patients, *self.smaller) if size <= most]
        return replace(self, patients=sizes[0], smaller=tuple(sizes[1:])) if sizes else None

    def gradients(self, problem: Problem, stack: PatientStack) -> Iterator[Tensor]:
        """Yield the gradients of those who are there, in order, some at a time: each (patients, num_parameters)."""
        problem = problem.with_autocast(self.autocast)
        for part, present in stack.filled_parts((self.patients, *self.smaller)):
            yield self.engine(problem, part)[:present]

    def add_to(self, total: LatticeSum, problem: Problem, stack: PatientStack, *, clipping_norm: float) -> None:
        """Add the patients' gradients, each clipped, to ``total``."""
        for gradients in self.gradients(problem, stack):
            total.add(gradients, clipping_norm=clipping_norm)
            del gradients  # its memory serves the next part
