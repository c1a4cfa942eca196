"""One round of private training at one site, read from top to bottom.

    y = sum over strata a, over Poisson-sampled patients i of a:  round(g_i min(1, C_a / |g_i|) / step)    integers
    distributed:  leaves  y + rounded N(0, s^2 / h)                      masked afterwards; one sum a round
    local:        theta <- theta - eta (noised y / B + mu (theta - theta_0)), E times; leaves  theta - theta_0

    One clip a patient, whatever the number of scans.
    C_a clipping norm of the stratum   s = noise multiplier times C   h guaranteed honest survivors
    B expected batch, a public constant, never the realised one   mu proximal weight, applied after clip and noise

What leaves depends on a patient only through y. Nothing else is returned: no loss, no count, no time, no exception of
the data. The caller has reserved the step in the ledger before it calls (docs/privacy.md section 4).
Source: Abadi et al. 2016 (clip, noise), Li et al. 2020 (proximal term), Sohn et al. 2020 (pseudo-labels on views).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.dicom.record import Stratum
from client.learning.feature_moments import FeatureMoments
from client.learning.lessons import Lesson, lesson_for
from client.learning.noise import LARGEST_NORMAL
from client.learning.patients import Patients
from client.learning.round_randomness import PatientRandomness, RoundRandomness
from client.learning.teacher import Teacher, good_enough
from client.learning.training_settings import Method, Placement, TrainingSettings
from client.private_gradients.clipping import LatticeSum, finest_step
from client.private_gradients.engine import PrivateGradient, patients_that_fit
from client.private_gradients.settings import SpeedSettings
from client.private_gradients.stacks import PatientRows, PatientStack, stack_patients
from common.networks.parameters import flatten, layout, load
from common.plan.errors import PlanWeakPrivacyError

NOISE_BLOCK: Final = 1 << 20  # values that are noised at a time: beside the sum there is no second vector


class LatticeNoise(Protocol):
    """Gaussian noise from a cryptographic source, rounded to integers."""

    def integers(self, length: int, stddev: float) -> NDArray[np.int64]:
        """Return round(stddev * z), z standard normal: (length,) int64."""


@dataclass(frozen=True)
class LatticeUpdate:
    """What may leave: ``values`` (num_parameters,), each worth ``step``; int32 on the plan's lattice, else int64."""

    values: NDArray[np.signedinteger]
    step: float

    @property
    def vector(self) -> NDArray[np.float64]:
        """Return the real numbers."""
        return self.values.astype(np.float64) * self.step


@dataclass(frozen=True)
class PublicImages:
    """Images on which the gate judges the teacher; they belong to nobody. images (n, 1, *size), classes (n,) int64."""

    images: Tensor = field(default_factory=lambda: torch.zeros(0, 1, 1, 1))
    classes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))


class PhaseTraining:
    """One phase at one site: what stays the same from round to round.

    ``network`` is trained where it lives (processor or GPU). ``lattice_step``: worth of one integer, from the plan's
    fixed point; None chooses the finest that privacy.md section 2 names (local placement, experiments).
    ``lattice_limit``: the largest integer that a word of the plan takes.
    ``patients_at_once``: speed setting; fewer where the gradients of so many would not fit (``patients_that_fit``).
    ``noise``: None only for placement ``none``. Memory, in vectors of the trained part: weights, the sum, one gradient
    for each of ``patients_at_once``; a teacher and local steps take more.
    """

    def __init__(
        self,
        network: nn.Module,
        patients: Patients,
        settings: TrainingSettings,
        *,
        noise: LatticeNoise | None,
        lattice_step: float | None = None,
        lattice_limit: int = 2**31 - 1,
        public: PublicImages | None = None,
        speed: SpeedSettings | None = None,
        patients_at_once: int = 16,
    ) -> None:
        if noise is None and settings.placement is not Placement.NONE:
            raise ValueError("a private phase needs a source of noise")
        self.settings, self.patients, self.noise = settings, patients, noise
        self.network, self.order = network, layout(network, settings.trainable)
        self.teacher = Teacher(network, decay=settings.teacher_decay) if settings.pseudo_labels else None
        self.followed_round, self.public = 0, public or PublicImages()
        self.step_size = lattice_step or finest_step(settings.clipping_norm, self.order.num_parameters)
        self.integers = np.int32 if lattice_step else np.int64
        self.most = lattice_limit if lattice_step else 2**63 - 1
        moments = FeatureMoments(network) if settings.method is Method.STANDARDISE else None
        self.gradient = PrivateGradient(moments or network, moments.order if moments else self.order, speed)
        self.patients_at_once = min(patients_at_once, patients_that_fit(self.order.num_parameters, self._device))
        self.lessons = {stratum: lesson_for(stratum, settings, self.teacher) for stratum in Stratum}

    def train_round(
        self, round_number: int, released: Tensor | None = None, *, randomness: RoundRandomness | None = None
    ) -> LatticeUpdate:
        """Train one round from the ``released`` model and return what may leave.

        Shapes: released (num_parameters,) float32 in the layout's order; None: the network holds it already. The
        released model of a phase's first round is also its first teacher (decay 1).
        Guarantee: docs/privacy.md section 2; one patient more or less moves the un-noised sum by at most its clipping
        norm, and changes nothing else. ``randomness``: only tests pass it.
        Raises: WeightsInvalidError for a released vector that does not fit.
        """
        settings = self.settings
        randomness = randomness or RoundRandomness()

        # 1. The released model becomes the network; the teacher follows released models only, each of them once.
        if released is not None:
            load(self.network, self.order, released)
        if self.teacher and round_number != self.followed_round:
            self.teacher.follow(self.order, self.network)
        self.followed_round = round_number
        start = flatten(self.network, self.order) if settings.placement is Placement.LOCAL else torch.empty(0)
        strata = self._taking_part(round_number)

        for step in range(settings.local_steps):
            # 2. Sample patients, prepare their views and targets one by one, clip each patient's gradient, add up.
            total = LatticeSum(self.order.num_parameters, step=self.step_size, device=self._device)
            for stratum in strata:
                sampled = randomness.sampled(
                    self.patients.keys(stratum), sampling_rate=settings.sampling_rate(stratum), step=step
                )
                lesson, clipping_norm = self.lessons[stratum], settings.clipping_norm_of(stratum)
                stacks = self._stacks(sampled, lesson, randomness, step)
                self.gradient.clipped_sum(stacks, lesson.loss, clipping_norm=clipping_norm, total=total)

            # 3. Add this site's noise on the same lattice; an empty sample is noise alone.
            update = self._noised(total)
            del total
            if settings.placement is not Placement.LOCAL:
                return update

            # 4. Local steps: the public divisor, the proximal term after clip and noise.
            mean = torch.from_numpy(update.vector) / settings.expected_batch
            here = flatten(self.network, self.order)
            pull = settings.proximal_weight * (here - start)
            load(self.network, self.order, (here - settings.local_learning_rate * (mean + pull)).float())

        difference = (flatten(self.network, self.order) - start).numpy().astype(np.float64)
        return LatticeUpdate(np.rint(difference / self.step_size).astype(np.int64), self.step_size)

    def _taking_part(self, round_number: int) -> list[Stratum]:
        """Return the strata that teach in this round: a function of the plan, the round and the released model."""
        settings = self.settings
        strata = [stratum for stratum in Stratum if settings.sampling_rate(stratum) > 0]
        if settings.label_free:
            return strata
        late_enough = settings.pseudo_labels and round_number >= settings.unlabelled_from_round
        if (
            late_enough
            and self.teacher
            and good_enough(
                self.teacher,
                self.public.images,
                self.public.classes,
                least_balanced_accuracy=settings.gate_balanced_accuracy,
            )
        ):
            return strata
        return [stratum for stratum in strata if stratum is Stratum.LABELLED]

    def _stacks(
        self, sampled: Sequence[str], lesson: Lesson, randomness: RoundRandomness, step: int
    ) -> Iterator[PatientStack]:
        """Yield stacks of fixed shape; patients are read, augmented and labelled when their stack is due."""
        rows_per_patient = self.settings.most_scans * self.settings.views_per_scan
        for start in range(0, len(sampled), self.patients_at_once):
            together = sampled[start : start + self.patients_at_once]
            rows = [self._rows(key, lesson, randomness.of_patient(key, step=step)) for key in together]
            yield from stack_patients(rows, patients_per_stack=self.patients_at_once, rows_per_patient=rows_per_patient)

    def _rows(self, patient_key: str, lesson: Lesson, randomness: PatientRandomness) -> PatientRows | None:
        """Prepare one patient, alone: at most k scans, chosen at random; None for an empty record."""
        scans = self.patients.read(patient_key)
        chosen = torch.randperm(len(scans.images), generator=randomness.generator("choice of scans"))
        if len(chosen) == 0:
            return None
        return lesson.rows(scans.chosen(chosen[: self.settings.most_scans]).to(self._device), randomness)

    @property
    def _device(self) -> torch.device:
        """Where the network lives."""
        return next(self.network.parameters()).device

    def _noised(self, total: LatticeSum) -> LatticeUpdate:
        """Return the sum plus this site's share of the noise, in the sum's own memory where that has the right type.

        Rounding to the lattice moves the sum by at most step sqrt(d) more for a patient; the noise is scaled up for it
        (by at most one per cent, or the plan is refused).
        """
        settings, sums = self.settings, total.values.cpu().numpy()
        values: NDArray[Any] = sums if sums.dtype == self.integers else np.empty(len(sums), self.integers)
        stddev = settings.noise_stddev * (1 + self._rounding_share()) / self.step_size
        room = self._room(stddev)
        for start in range(0, len(sums), NOISE_BLOCK):
            block = sums[start : start + NOISE_BLOCK].astype(np.int64)
            np.clip(block, -room, room, out=block)
            if self.noise is not None and settings.placement is not Placement.NONE:
                block += self.noise.integers(len(block), stddev)
            values[start : start + NOISE_BLOCK] = np.clip(block, -self.most, self.most, out=block)
        return LatticeUpdate(values, self.step_size)

    def _room(self, stddev: float) -> int:
        """Return where a coordinate of the sum is cut before noise is added, so that with it it fits into a word.

        A cut before the noise brings two sums no further apart. A cut after a site's *share* of the noise would be no
        post-processing of what leaves, the sum of all sites: it takes the share away where it bites, and a patient
        would be hidden by the own hospital's share alone. Plans without room for a share and a patient are refused.
        """
        if self.settings.placement is not Placement.DISTRIBUTED:
            return self.most
        room = self.most - math.ceil(LARGEST_NORMAL * stddev) - 1
        if room * self.step_size < self.settings.clipping_norm:
            raise PlanWeakPrivacyError("the plan's coordinate_range has no room for the noise beside one patient")
        return room

    def _rounding_share(self) -> float:
        """Return step sqrt(d) over the smallest clipping norm in use."""
        settings = self.settings
        ratio = settings.unlabelled_clip_ratio if settings.unlabelled_sampling_rate > 0 else 1.0
        return self.step_size * math.sqrt(self.order.num_parameters) / (settings.clipping_norm * ratio)
