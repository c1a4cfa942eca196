"""One step of private training at one site, read from top to bottom.

    y = sum over strata a, over Poisson-sampled patients i of a:  round(g_i min(1, C_a / |g_i|) / step)    integers

    One clip a patient, whatever the number of scans.     C_a clipping norm of the stratum

y is clipped and not yet noised: it goes to the agent, which adds the noise (``client.learning.mechanism``) and takes
local steps (``client.learning.private_round``). What leaves depends on a patient only through y. Nothing else is
returned: no loss, no count, no time, no exception of a patient's record, which adds 0 as a gradient that is NaN does.
The agent has reserved the step in the ledger before it asks (docs/privacy.md section 4).
Source: Abadi et al. 2016 (clip), Sohn et al. 2020 (pseudo-labels on views).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from client.dicom.record import Stratum
from client.errors import MemoryEndedError, TrainerFailedError
from client.learning.end_of_memory import is_end_of_memory
from client.learning.feature_moments import FeatureMoments
from client.learning.lessons import lesson_for
from client.learning.made_up_patient import made_up_scans
from client.learning.mean_label_map import MeanLabelMap
from client.learning.patients import ROW_AXES, Patients
from client.learning.preparing import Begun, Preparation, Prepared, one_ahead
from client.learning.round_randomness import KEY_BYTES, PatientRandomness, RoundRandomness
from client.learning.second_moments import SecondMoments
from client.learning.teacher import Teacher, good_enough
from client.learning.training_settings import Method, Placement, TrainingSettings
from client.private_gradients.budget import Budget, Spending
from client.private_gradients.clipping import LatticeSum
from client.private_gradients.engine import PrivateGradient, patients_that_fit
from client.private_gradients.lattice import finest_step
from client.private_gradients.settings import MOST_PATIENTS, SpeedSettings
from client.private_gradients.stacks import PatientRows
from client.private_gradients.verdict import Verdicts
from common.faults import fault_without_text
from common.networks.errors import NetworkUnsuitableError
from common.networks.parameters import flatten, layout, load

MOMENTS: Final[Mapping[Method, Callable[[nn.Module], FeatureMoments | SecondMoments | MeanLabelMap]]] = {
    Method.STANDARDISE: FeatureMoments,
    Method.RIDGE: SecondMoments,
    Method.PRIOR: MeanLabelMap,
}  # in the place of the network, where what a patient adds is no gradient of it

_log = logging.getLogger("fedward.trainer")


@dataclass(frozen=True)
class PublicImages:
    """Images on which the gate judges the teacher; they belong to nobody.

    Shapes: images (n, channels, *size), classes (n,) int64.
    """

    images: Tensor = field(default_factory=lambda: torch.zeros(0, 1, 1, 1))
    classes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))


class PhaseTraining:
    """One phase at one site: what stays the same from round to round.

    ``network`` is trained where it lives (processor or GPU). ``lattice_step``: worth of one integer, from the plan's
    fixed point; None chooses the finest that privacy.md section 2 names (local placement, experiments).
    ``sum_length``: numbers of a sum. ``input_shape``: ``StudyPlan.scan_shape``. ``patients_at_once``: speed setting;
    fewer where the gradients of so many would not fit (``patients_that_fit``). ``limit``: no more side by side,
    whatever was measured.
    ``verdicts``: engines that were chosen beforehand (``measure``); None: they are chosen where they are needed.
    Memory, in vectors of the trained part: weights, the sum, one gradient for each of ``patients_at_once``; a teacher
    and local steps take more.
    """

    def __init__(
        self,
        network: nn.Module,
        patients: Patients,
        settings: TrainingSettings,
        *,
        lattice_step: float | None = None,
        public: PublicImages | None = None,
        speed: SpeedSettings | None = None,
        patients_at_once: int = 16,
        input_shape: tuple[int, ...] | None = None,
        verdicts: Verdicts | None = None,
        limit: int = MOST_PATIENTS,
    ) -> None:
        self.settings, self.patients, self._input_shape = settings, patients, input_shape
        self.network, self.order = network, layout(network, settings.trainable)
        self.teacher = Teacher(network, decay=settings.teacher_decay) if settings.pseudo_labels else None
        self.followed_round, self.public = 0, public or PublicImages()
        moments = MOMENTS[settings.method](network) if settings.method in MOMENTS else None
        order = moments.order if moments else self.order
        self.sum_length = order.num_parameters
        self.step_size = lattice_step or finest_step(settings.clipping_norm, self.sum_length)
        on_features = input_shape is not None and len(input_shape) == ROW_AXES
        # A head trains few numbers, and a matrix product of one row has other bits than one of several: parts have one
        # size, where examples can hardly show that two sizes agree (decision 0040).
        self.gradient = PrivateGradient(moments or network, order, speed, verdicts, limit=limit, one_size=on_features)
        self.patients_at_once = min(patients_at_once, patients_that_fit(self.sum_length, self._device))
        self._together = min(self.patients_at_once, limit)
        self.lessons = {stratum: lesson_for(stratum, settings, self.teacher) for stratum in Stratum}
        self._preparation = Preparation(patients, settings, input_shape, self._device, views_ahead=self.teacher is None)
        self._strata: list[Stratum] = []
        self._start, self._step, self._ramp = torch.empty(0), 0, 1.0
        self._randomness = RoundRandomness()

    def begin_round(
        self, round_number: int, released: Tensor | None = None, *, randomness: RoundRandomness | None = None
    ) -> LatticeSum:
        """Begin a round on the ``released`` model, and return the clipped sum of its first step.

        Shapes: released (num_parameters,) float32 in the layout's order; None: the network holds it already. The
        released model of a phase's first round is also its first teacher (decay 1).
        Guarantee: docs/privacy.md section 2; one patient more or less moves the sum by at most its clipping norm and
        rounding, and changes nothing else. ``randomness``: only tests pass it.
        Raises: WeightsInvalidError for a released vector that does not fit; TrainerFailedError, NetworkUnsuitableError
        for what depends on no patient.
        """
        # 1. The released model becomes the network; the teacher follows released models only, each of them once.
        if released is not None:
            load(self.network, self.order, released)
        if self.teacher and round_number != self.followed_round:
            self.teacher.follow(self.order, self.network)
        self.followed_round, self._ramp = round_number, self.settings.ramp(round_number)
        if self.settings.placement is Placement.LOCAL:
            self._start = flatten(self.network, self.order)
        self._strata = self._taking_part(round_number)
        self._randomness, self._step = randomness or RoundRandomness(), 0
        return self._clipped_sum()

    def go_on(self, difference: Tensor) -> LatticeSum:
        """Take the round's next local step from the released model plus ``difference`` (num_parameters,) float.

        Returns and raises: as ``begin_round``.
        """
        load(self.network, self.order, (self._start + difference).float())
        self._step += 1
        return self._clipped_sum()

    def measure(self, budget: Budget, *, planned_patients: Mapping[Stratum, float]) -> None:
        """Choose the engines of this phase before its first round, on a made-up patient; they go to the verdicts.

        ``planned_patients``: gradients that the phase plans in each stratum, for the budget. Raises: as
        ``begin_round``; ValueError without the images' shape.
        """
        for stratum in (each for each in Stratum if self.settings.sampling_rate(each) > 0):
            self.gradient.measure(
                self._made_up(stratum),
                self.lessons[stratum].loss,
                at_once=self.patients_at_once,
                most_rows=self._most_rows,
                spending=Spending(budget, planned_patients.get(stratum, 0.0)),
            )

    def one_made_up_row(self) -> None:
        """Compute the gradient of a made-up patient with one row, alone: to see how much memory it takes."""
        stratum = next(each for each in Stratum if self.settings.sampling_rate(each) > 0)
        patient = self._made_up(stratum)
        row = PatientRows(
            patient.inputs[:1], tuple(each[:1] for each in patient.targets), torch.ones_like(patient.weights[:1])
        )
        self.gradient.add(
            [row],
            self.lessons[stratum].loss,
            clipping_norm=self.settings.clipping_norm,
            total=self.empty_sum(),
            at_once=1,
            most_rows=1,
        )

    def _made_up(self, stratum: Stratum) -> PatientRows:
        """Prepare a patient who does not exist. Raises: ValueError without the images' shape."""
        if self._input_shape is None:
            raise ValueError("a patient can only be made up for images of a known shape")
        scans = made_up_scans(self.settings, self._input_shape, stratum).to(self._device)
        return self.lessons[stratum].rows(scans, RoundRandomness(bytes(KEY_BYTES)).of_patient("", step=0))

    def _clipped_sum(self) -> LatticeSum:
        """2. Sample patients, prepare their views and targets one by one, clip each patient's gradient, add up.

        A patient whose record raises adds 0: the sum is made again without it, so that nothing of it is in there.
        """
        total, raising = self._sum_without(frozenset())
        if raising:
            _log.warning("records that training cannot work with: %d; each adds nothing in this step", len(raising))
            total, more = self._sum_without(raising)
            if more:
                raise TrainerFailedError("records raised that did not before; this processor does not repeat itself")
        return total

    def _sum_without(self, silent: AbstractSet[str]) -> tuple[LatticeSum, set[str]]:
        """Return the sum without some patients, and those whose record raised; with any, the sum is not to be used."""
        total, raising = self.empty_sum(), set[str]()
        for stratum in self._strata:
            keys = self.patients.keys(stratum)
            rate = self.settings.sampling_rate(stratum)
            drawn = self._randomness.sampled(keys, sampling_rate=rate, step=self._step)
            sampled, size = [key for key in drawn if key not in silent], self._stack(stratum)
            stacks = [sampled[start : start + size] for start in range(0, len(sampled), size)]
            for together, prepared in one_ahead(partial(self._begun, stratum), stacks):
                try:
                    self._add(together, prepared, stratum, total)
                except (TrainerFailedError, NetworkUnsuitableError):
                    raise  # of the processor or the network, whoever the patients are
                except Exception as error:
                    alone = {key for key in together if self._raises(key, stratum)}
                    if not alone and is_end_of_memory(error):  # of this machine: each by itself there is enough
                        raise MemoryEndedError("memory ended in training") from None
                    if not alone:
                        raise
                    _log.warning("training met %s", fault_without_text(error))
                    raising |= alone
        return total, raising

    def _begun(self, stratum: Stratum, patient_keys: Sequence[str]) -> Begun:
        """Do for a stack what may be done while the gradients of the one before are made."""
        lesson = self.lessons[stratum]
        return [self._preparation.begun(key, lesson, self._draws(key)) for key in patient_keys]

    def _add(self, patient_keys: Sequence[str], prepared: Prepared[Begun], stratum: Stratum, total: LatticeSum) -> None:
        """Add the clipped gradients of patients who fit beside one another."""
        lesson, ramp = self.lessons[stratum], 1.0 if stratum is Stratum.LABELLED else self._ramp
        rows = [
            self._preparation.finished(begun, lesson, self._draws(key))
            for key, begun in zip(patient_keys, prepared.take(), strict=True)
        ]
        self.gradient.add(
            [each if ramp == 1 else replace(each, weights=ramp * each.weights) for each in rows if each is not None],
            lesson.loss,
            clipping_norm=self.settings.clipping_norm_of(stratum),
            total=total,
            at_once=self.patients_at_once,
            most_rows=self._most_rows,
        )

    def _draws(self, patient_key: str) -> PatientRandomness:
        return self._randomness.of_patient(patient_key, step=self._step)

    def _stack(self, stratum: Stratum) -> int:
        """Return how many patients are prepared together: one where the engine takes one by one, so none waits."""
        alone = self.gradient.goes_one_by_one(self.lessons[stratum].loss, at_once=self.patients_at_once)
        return 1 if alone else self._together

    def _raises(self, patient_key: str, stratum: Stratum) -> bool:
        """Tell whether a patient's record raises also when nobody is beside it."""
        try:
            for together, prepared in one_ahead(partial(self._begun, stratum), [[patient_key]]):
                self._add(together, prepared, stratum, self.empty_sum())
        except Exception:  # noqa: BLE001 (whatever it is, it is this record's)
            return True
        return False

    def empty_sum(self) -> LatticeSum:
        """Return the sum over nobody."""
        return LatticeSum(self.sum_length, step=self.step_size, device=self._device)

    def _taking_part(self, round_number: int) -> list[Stratum]:
        """Return the strata that teach in this round: a function of the plan, the round and the released model."""
        settings = self.settings
        strata = [stratum for stratum in Stratum if settings.sampling_rate(stratum) > 0]
        if settings.both_strata:
            return strata
        late_enough = settings.pseudo_labels and round_number >= settings.unlabelled_from_round
        gate, images, classes = settings.gate_balanced_accuracy, self.public.images, self.public.classes
        if late_enough and self.teacher and good_enough(self.teacher, images, classes, least_balanced_accuracy=gate):
            return strata
        return [stratum for stratum in strata if stratum is Stratum.LABELLED]

    @property
    def _most_rows(self) -> int:
        """Rows of one patient at most."""
        return self.settings.most_rows

    @property
    def _device(self) -> torch.device:
        """Where the network lives."""
        return next(self.network.parameters()).device
