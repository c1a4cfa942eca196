"""Sampled patients, packed into stacks, which are worked on in parts of a few public sizes.

The sizes bound memory and let a GPU replay one graph. Kernels choose their order of summation by the shape, so a size
is used only where a patient's gradient was shown to be the same to the last bit in it (``choice``). Places that nobody
has are left out, but for those that fill up the smallest part.
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

    def of_weight(self) -> "PatientRows | None":
        """Return the rows of weight other than 0, or None where there is none: the others contribute nothing."""
        rows = self.weights != 0
        if not bool(rows.any()):
            return None
        if bool(rows.all()):
            return self
        return PatientRows(self.inputs[rows], tuple(target[rows] for target in self.targets), self.weights[rows])


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

    def first_rows(self, count: int) -> "PatientStack":
        """Return the stack with each patient's first rows only."""
        targets = tuple(target[:, :count] for target in self.targets)
        return PatientStack(self.inputs[:, :count], targets, self.weights[:, :count])

    def repeated(self, patients: int) -> "PatientStack":
        """Return a stack of so many places with the first one's values, which it does not copy."""

        def as_many(tensor: Tensor) -> Tensor:
            return tensor[:1].expand(patients, *tensor.shape[1:])

        return PatientStack(as_many(self.inputs), tuple(map(as_many, self.targets)), as_many(self.weights))

    def parts(self, patients: int) -> Iterator["PatientStack"]:
        """Yield the stack in parts of ``patients``, which must divide it, so that all parts have one public shape."""
        if self.patients % patients:
            raise ValueError(f"a stack of {self.patients} patients has no equal parts of {patients}")
        for start in range(0, self.patients, patients):
            yield self.places(slice(start, start + patients))

    def filled_parts(self, sizes: Sequence[int]) -> Iterator[tuple["PatientStack", int]]:
        """Yield (part, number of patients in it): those who are there, in order, in parts of the given sizes.

        Each time the largest part that is full and leaves enough for another, or nobody; who is left in the end fills
        the smallest one as far as it goes.
        """
        filled, least = self._filled(), min(sizes)
        start, left = 0, filled.patients
        while left:
            full = [size for size in sizes if size <= left]
            size = max(
                (size for size in full if left - size >= least or left == size), default=max(full, default=least)
            )
            present = min(size, left)
            part = filled.places(slice(start, start + present))
            yield part if present == size else part.with_empty_places(size - present), present
            start, left = start + present, left - present

    def _filled(self) -> "PatientStack":
        """Return the places with a row of weight other than 0; the stack itself if that is all."""
        there = (self.weights != 0).any(1)
        return self if bool(there.all()) else self.places(there)

    def places(self, chosen: slice | Tensor) -> "PatientStack":
        """Return some places: a slice, (patients,) bool, or their numbers in any order."""
        targets = tuple(target[chosen] for target in self.targets)
        return PatientStack(self.inputs[chosen], targets, self.weights[chosen])

    def with_empty_places(self, count: int) -> "PatientStack":
        """Return the stack with empty places behind the others."""

        def longer(tensor: Tensor) -> Tensor:
            return torch.cat([tensor, tensor.new_zeros((count, *tensor.shape[1:]))])

        return PatientStack(longer(self.inputs), tuple(map(longer, self.targets)), longer(self.weights))

    def present(self) -> Iterator[PatientRows]:
        """Yield each patient who has a row of weight other than 0, with those rows only."""
        for inputs, weights, *targets in zip(self.inputs, self.weights, *self.targets, strict=True):
            present = PatientRows(inputs, tuple(targets), weights).of_weight()
            if present is not None:
                yield present


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


def rows_together(patients: Sequence[PatientRows]) -> PatientStack:
    """Return a full stack of patients with equally many rows."""
    inputs, weights = (torch.stack([getattr(each, name) for each in patients]) for name in ("inputs", "weights"))
    targets = zip(*(each.targets for each in patients), strict=True)
    return PatientStack(inputs, tuple(torch.stack(each) for each in targets), weights)


def public_example(stack: PatientStack, *, seed: int = 0, patients: int | None = None) -> PatientStack:
    """Return a stack of the same kind without a patient in it: Gaussian inputs, zero targets, equal weights.

    ``patients``: number of places, those of ``stack`` if not given.
    The randomness is public; it is for timing engines and checking them against each other.
    """
    places = stack.patients if patients is None else patients
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn((places, *stack.inputs.shape[1:]), generator=generator, dtype=torch.float64).to(stack.inputs)
    weights = torch.full_like(stack.weights[:1], 1 / stack.weights.shape[1]).expand(places, -1).clone()
    targets = tuple(torch.zeros_like(target[:1]).expand(places, *target.shape[1:]).clone() for target in stack.targets)
    return PatientStack(inputs, targets, weights)
