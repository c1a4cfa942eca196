"""Sampled patients, packed into stacks of one fixed shape.

The shape is a public setting: it bounds memory, lets a GPU replay one graph, and keeps a patient's gradient the same
to the last bit whoever else was sampled (kernels choose their order of summation by the shape; see ``choice``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PatientRows:
    """What one sampled patient contributes to a step: a row for each scan, or for each view of each scan.

    Shapes: inputs (rows, channels, *size); targets: each (rows, ...), teacher's labels and masks included; weights
    (rows,), at least 0: the patient's loss is the sum over rows of weight times loss, so a mean has weights 1 / rows.
    Guarantee asked of the caller: every value is a function of this patient's record, of public values and of fresh
    randomness, never of another patient.
    """

    inputs: Tensor
    targets: tuple[Tensor, ...]
    weights: Tensor


@dataclass(frozen=True)
class PatientStack:
    """Patients padded to the same number of rows; padding has weight 0 and contributes exactly nothing.

    Shapes: inputs (patients, rows, channels, *size); targets: each (patients, rows, ...); weights (patients, rows).
    """

    inputs: Tensor
    targets: tuple[Tensor, ...]
    weights: Tensor

    def __post_init__(self) -> None:
        lead = self.weights.shape
        for tensor in (self.inputs, *self.targets):
            if len(lead) != 2 or tensor.shape[:2] != lead:
                raise ValueError(f"a stack of weights {tuple(lead)} cannot hold a tensor of {tuple(tensor.shape)}")

    @property
    def patients(self) -> int:
        """Number of places, padding included."""
        return self.weights.shape[0]

    def silenced(self) -> "PatientStack":
        """Return the stack with zero inputs wherever the weight is 0, so that no loss there can be NaN times 0."""
        absent = (self.weights == 0).view(*self.weights.shape, *[1] * (self.inputs.dim() - 2))
        return PatientStack(self.inputs.masked_fill(absent, 0), self.targets, self.weights)

    def flat(self) -> PatientRows:
        """Return all rows of all patients in one batch: (patients * rows, ...), patient by patient."""
        return PatientRows(
            self.inputs.flatten(0, 1), tuple(target.flatten(0, 1) for target in self.targets), self.weights.flatten()
        )

    def parts(self, patients: int) -> Iterator["PatientStack"]:
        """Yield the stack in parts of ``patients``, which must divide it, so that all parts have one public shape."""
        if self.patients % patients:
            raise ValueError(f"a stack of {self.patients} patients has no equal parts of {patients}")
        for start in range(0, self.patients, patients):
            part = slice(start, start + patients)
            yield PatientStack(self.inputs[part], tuple(target[part] for target in self.targets), self.weights[part])

    def present(self) -> Iterator[PatientRows]:
        """Yield each patient who has a row of weight other than 0, with those rows only."""
        for inputs, weights, *targets in zip(self.inputs, self.weights, *self.targets, strict=True):
            rows = weights != 0
            if bool(rows.all()):
                yield PatientRows(inputs, tuple(targets), weights)
            elif bool(rows.any()):
                yield PatientRows(inputs[rows], tuple(target[rows] for target in targets), weights[rows])


def stack_patients(
    records: Sequence[PatientRows | None], *, patients_per_stack: int, rows_per_patient: int
) -> Iterator[PatientStack]:
    """Yield stacks of exactly (patients_per_stack, rows_per_patient), the last ones padded; nobody there, no stack.

    An empty record (None) keeps its place, as padding: so nobody else's place depends on what is in it.
    Raises: ValueError if a patient has no row or more than ``rows_per_patient``: choosing at most k of a patient's own
    scans comes before.
    """
    for start in range(0, len(records), patients_per_stack):
        chunk = records[start : start + patients_per_stack]
        first = next((record for record in chunk if record is not None), None)
        if first is None:
            continue
        lead = (patients_per_stack, rows_per_patient)
        inputs = first.inputs.new_zeros(lead + first.inputs.shape[1:])
        targets = tuple(target.new_zeros(lead + target.shape[1:]) for target in first.targets)
        weights = first.weights.new_zeros(lead)
        for place, record in enumerate(chunk):
            if record is None:
                continue
            rows = len(record.weights)
            if not 1 <= rows <= rows_per_patient:
                raise ValueError(f"a patient has {rows} rows; 1 to {rows_per_patient} fit")
            inputs[place, :rows] = record.inputs
            weights[place, :rows] = record.weights
            for whole, part in zip(targets, record.targets, strict=True):
                whole[place, :rows] = part
        yield PatientStack(inputs, targets, weights)


def public_example(stack: PatientStack, *, seed: int = 0) -> PatientStack:
    """Return a stack of the same shape and types without a patient in it: Gaussian inputs, zero targets, equal weights.

    The randomness is public; it is for timing engines and checking them against each other.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(stack.inputs.shape, generator=generator, dtype=torch.float64).to(stack.inputs)
    weights = torch.full_like(stack.weights, 1 / stack.weights.shape[1])
    return PatientStack(inputs, tuple(torch.zeros_like(target) for target in stack.targets), weights)
