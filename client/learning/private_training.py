"""Training and mechanism in one process, for experiments, comparisons and audits; a hospital keeps them apart.

Same training page (``client.learning.training``), same mechanism (``client.learning.mechanism``). What the process
hands to itself it need not doubt, so a sum is not held against the number of patients.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.learning.assignment import Assignment, Sums
from client.learning.mechanism import WIDEST, LatticeNoise, Mechanism, SumRules
from client.learning.patient_counts import PatientCounts
from client.learning.patients import Patients
from client.learning.private_round import PrivateRound
from client.learning.round_randomness import RoundRandomness
from client.learning.training import PhaseTraining
from client.learning.training_settings import Placement, TrainingSettings
from client.private_gradients.clipping import LatticeSum

NOBODY = PatientCounts()


@dataclass(frozen=True)
class LatticeUpdate:
    """What may leave: ``values`` (num_parameters,), each worth ``step``; with local noise a difference of weights."""

    values: NDArray[np.signedinteger[Any]]
    step: float

    @property
    def vector(self) -> NDArray[np.float64]:
        """Return the real numbers."""
        return self.values.astype(np.float64) * self.step


class PrivateTraining(PhaseTraining):
    """A phase whose rounds come out noised: ``train_round``.

    ``noise``: None only for placement ``none``. ``lattice_limit``: the largest integer that a word of the plan takes.
    Raises: ValueError for a private phase without a source of noise; PlanWeakPrivacyError as ``SumRules.of_gradients``.
    """

    def __init__(
        self,
        network: nn.Module,
        patients: Patients,
        settings: TrainingSettings,
        *,
        noise: LatticeNoise | None,
        lattice_limit: int = WIDEST,
        **how: Any,
    ) -> None:
        if noise is None and settings.placement is not Placement.NONE:
            raise ValueError("a private phase needs a source of noise")
        super().__init__(network, patients, settings, **how)
        rules = SumRules.of_gradients(
            settings, NOBODY, length=self.sum_length, step=self.step_size, limit=lattice_limit
        )
        self.mechanism = Mechanism(replace(rules, largest_norm=math.inf), noise or _NoNoise())

    def train_round(
        self, round_number: int, released: Tensor | None = None, *, randomness: RoundRandomness | None = None
    ) -> LatticeUpdate:
        """Train one round and return what may leave. Arguments and errors: as ``PhaseTraining.begin_round``."""
        steps = _Steps(self, round_number, released, randomness)
        counts = Mechanism(SumRules(length=0, stddev=0.0, largest_norm=math.inf, room=0), _NoNoise())
        work = PrivateRound(self.settings, sums=self.mechanism, counts=counts, step=self.step_size)
        _, body = work.run(steps, Assignment(0, round_number, evaluated=False, scored=False), memoryview(b""))
        if steps.failure is not None:
            raise steps.failure
        if self.settings.placement is Placement.LOCAL:
            body = np.rint(body.astype(np.float64) / self.step_size).astype(np.int64)
        return LatticeUpdate(body, self.step_size)

    def handed_over(self, total: LatticeSum) -> Sums:
        """Return a sum as the mechanism takes it; tests plant faults here."""
        sums: Sums = total.values.cpu().numpy()
        return sums


@dataclass
class _Steps:
    """``client.learning.assignment.Training`` of this very process. ``failure``: for whoever experiments to see."""

    phase: PrivateTraining
    round_number: int
    released: Tensor | None
    randomness: RoundRandomness | None
    failure: Exception | None = None

    def begin(self, assignment: Assignment, model: memoryview) -> tuple[Sums, Sums]:
        del assignment, model
        begin_round = self.phase.begin_round
        found = self._noted(lambda: begin_round(self.round_number, self.released, randomness=self.randomness))
        return np.zeros(0, np.int64), found

    def go_on(self, difference: NDArray[np.float32]) -> Sums:
        return self._noted(lambda: self.phase.go_on(torch.from_numpy(difference)))

    def _noted(self, work: Callable[[], LatticeSum]) -> Sums:
        try:
            return self.phase.handed_over(work())
        except Exception as error:
            self.failure = error
            raise


class _NoNoise:
    def integers(self, length: int, stddev: float) -> NDArray[np.int64]:
        raise AssertionError(f"noise was asked for: {length} of {stddev}")
