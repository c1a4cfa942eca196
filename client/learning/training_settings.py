"""What a phase of the plan asks of one site's training, as plain values. Speed settings of the site are elsewhere."""

import math
from dataclasses import dataclass
from enum import StrEnum

from client.dicom.record import Stratum
from client.learning.patch_rule import PatchRule
from common.plan.combinations import METHODS
from common.plan.errors import PlanInvalidError
from common.plan.phases import Loss
from common.plan.phases import Method as PlanMethod
from common.plan.task import TaskKind

RAMP = 5.0  # of the ramp-up: it begins at exp(-5)
NO_CLIP = 1e6  # where nothing is promised, gradients are summed as they are


class Task(StrEnum):
    """What the network answers; decides the shape of labels (``patients.PatientScans``) and the loss."""

    CLASSIFICATION = "classification"
    MULTI_LABEL = "multi_label"
    SEGMENTATION = "segmentation"


class Method(StrEnum):
    """How scans teach (docs/privacy.md section 3).

    supervised: labels only. teacher_student, fixmatch: the teacher labels the weak view, the student learns on strong
    views. mean_teacher: consistency of voxel probabilities (segmentation). reconstruction: hidden patches are filled
    in (no labels). standardise: centre and scale of the features (no labels; trainable part ``feature_norm``). ridge:
    second moments of the features, and their products with labels (trainable part ``head``).
    """

    SUPERVISED = "supervised"
    TEACHER_STUDENT = "teacher_student"
    FIXMATCH = "fixmatch"
    MEAN_TEACHER = "mean_teacher"
    RECONSTRUCTION = "reconstruction"
    STANDARDISE = "standardise"
    RIDGE = "ridge"
    PRIOR = "prior"


class Placement(StrEnum):
    """Who adds how much noise: a share of it (secure aggregation needed), all of it, or none (public data only)."""

    DISTRIBUTED = "distributed"
    LOCAL = "local"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """One phase. Everything here is public and fixed before the first round.

    sampling rates: Poisson, for each stratum; 0 leaves the stratum out. clipping_norm C: bound of one labelled
    patient's gradient (L2); unlabelled patients have ``unlabelled_clip_ratio`` C. noise_multiplier: standard deviation
    of the noise on the whole sum over C. honest_survivors h: the site adds variance 1 / h of it (``distributed``).
    expected_batch: patients expected in this site's step, the public divisor of local steps.
    views_per_scan: strong views whose losses are averaged before clipping. most_scans: k, scans used of one patient.
    patches: what is taken of them instead of the whole (``client.learning.patches``).
    ramp_up_rounds: in which the weight of unlabelled patients rises (``ramp``).
    wide_views, mirrored: how far weak views of a segmentation go, and axes (``views.ViewRange``).
    unlabelled_weight: loss weight of scans with a teacher's answer where no clip decides (``none``; other scans of a
    labelled patient). teacher_decay: 1 keeps the phase's first model as teacher, 0 takes the last released one.
    gate_balanced_accuracy: least balanced accuracy of the teacher on public images; below it unlabelled patients
    contribute zero (0 = no gate). loss: of label maps. hidden_share: share of patches hidden for reconstruction.
    Raises: PlanInvalidError for values out of bounds or against one another.
    """

    task: Task
    classes: int
    dimensions: int
    method: Method = Method.SUPERVISED
    placement: Placement = Placement.DISTRIBUTED
    trainable: str | tuple[str, ...] = "all"
    labelled_sampling_rate: float
    unlabelled_sampling_rate: float = 0.0
    clipping_norm: float = 1.0
    unlabelled_clip_ratio: float = 0.1
    noise_multiplier: float
    honest_survivors: int = 1
    expected_batch: float = 1.0
    most_scans: int = 4
    patches: PatchRule | None = None
    views_per_scan: int = 1
    wide_views: bool = False
    mirrored: tuple[int, ...] = ()
    class_weights: tuple[float, ...] = ()
    loss: Loss = Loss.DICE_CE
    confidence_threshold: float = 0.95
    unlabelled_weight: float = 0.5
    unlabelled_from_round: int = 1
    ramp_up_rounds: int = 0
    teacher_decay: float = 1.0
    gate_balanced_accuracy: float = 0.0
    hidden_share: float = 0.5
    local_steps: int = 1
    local_learning_rate: float = 0.1
    proximal_weight: float = 0.0

    def __post_init__(self) -> None:
        for name, value, low, high in self._bounds():
            if not low <= value <= high:  # also refuses NaN
                raise PlanInvalidError(
                    f"training setting {name} is {value!r}; it must lie between {low:g} and {high:g}"
                )
        if self.class_weights and len(self.class_weights) != self.classes:
            raise PlanInvalidError(f"{len(self.class_weights)} class weights for {self.classes} classes")
        if self.placement is not Placement.LOCAL and (self.local_steps != 1 or self.proximal_weight != 0):
            raise PlanInvalidError("local steps and a proximal term need noise placement 'local'")
        if self.placement is not Placement.NONE and self.noise_multiplier <= 0:
            raise PlanInvalidError("noise multiplier is 0; only noise placement 'none' may leave the noise out")
        if self.method is Method.STANDARDISE and self.trainable != "feature_norm":
            raise PlanInvalidError("method standardise trains 'feature_norm' and nothing else")
        if self.method is Method.STANDARDISE and self.placement is Placement.LOCAL:
            raise PlanInvalidError("method standardise needs the sum over all sites; noise placement 'local' has none")
        if self.method is Method.RIDGE and (self.trainable != "head" or self.placement is Placement.LOCAL):
            raise PlanInvalidError("method ridge trains 'head' and nothing else, from the sum over all sites")
        if PlanMethod(self.method.value) not in METHODS[TaskKind(self.task.value)]:
            raise PlanInvalidError(f"method {self.method} does not fit task {self.task}")

    @property
    def most_rows(self) -> int:
        """Rows of one patient at most: views of scans, or of patches of them."""
        return self.views_per_scan * (self.patches.count if self.patches else self.most_scans)

    def ramp(self, round_number: int) -> float:
        """Return what a round's unlabelled patients weigh of their weight, above 0, 1 after the ramp-up.

        exp(-5 (1 - t / R)^2), t from 0 at ``unlabelled_from_round``. Source: Laine & Aila 2017.
        """
        left = 1 - (round_number - self.unlabelled_from_round) / max(1, self.ramp_up_rounds)
        return math.exp(-RAMP * left * left) if self.ramp_up_rounds and left > 0 else 1.0

    @property
    def pseudo_labels(self) -> bool:
        """Whether a teacher answers for scans without labels."""
        return self.method in {Method.TEACHER_STUDENT, Method.FIXMATCH, Method.MEAN_TEACHER}

    @property
    def label_free(self) -> bool:
        """Whether labels are ignored in both strata."""
        return self.method in {Method.RECONSTRUCTION, Method.STANDARDISE}

    @property
    def both_strata(self) -> bool:
        """Whether both strata take part in every round: unlabelled patients need no teacher."""
        return self.label_free or self.method is Method.RIDGE

    @property
    def noise_stddev(self) -> float:
        """Standard deviation of the noise that this site adds to each coordinate of one sum."""
        whole = self.noise_multiplier * self.clipping_norm
        return whole / math.sqrt(self.honest_survivors) if self.placement is Placement.DISTRIBUTED else whole

    def sampling_rate(self, stratum: Stratum) -> float:
        """Return the Poisson rate of a stratum."""
        return self.labelled_sampling_rate if stratum is Stratum.LABELLED else self.unlabelled_sampling_rate

    def clipping_norm_of(self, stratum: Stratum) -> float:
        """Return C for labelled patients, the unlabelled clip ratio times C for the others; no clip without privacy."""
        if self.placement is Placement.NONE:
            return NO_CLIP
        return self.clipping_norm * (1.0 if stratum is Stratum.LABELLED else self.unlabelled_clip_ratio)

    def _bounds(self) -> tuple[tuple[str, float, float, float], ...]:
        positive = 1e-9
        return (
            ("labelled_sampling_rate", self.labelled_sampling_rate, 0, 1),
            ("unlabelled_sampling_rate", self.unlabelled_sampling_rate, 0, 1),
            ("clipping_norm", self.clipping_norm, positive, 1e6),
            ("unlabelled_clip_ratio", self.unlabelled_clip_ratio, positive, 1),
            ("noise_multiplier", self.noise_multiplier, 0, 1e6),
            ("honest_survivors", self.honest_survivors, 1, 1e6),
            ("expected_batch", self.expected_batch, positive, 1e9),
            ("most_scans", self.most_scans, 1, 64),
            ("views_per_scan", self.views_per_scan, 1, 64),
            ("confidence_threshold", self.confidence_threshold, 0, 1),
            ("unlabelled_weight", self.unlabelled_weight, 0, 10),
            ("teacher_decay", self.teacher_decay, 0, 1),
            ("gate_balanced_accuracy", self.gate_balanced_accuracy, 0, 1),
            ("hidden_share", self.hidden_share, 0, 1),
            ("local_steps", self.local_steps, 1, 1000),
            ("local_learning_rate", self.local_learning_rate, positive, 1000),
            ("proximal_weight", self.proximal_weight, 0, 10),
            *(("class_weights", weight, positive, 1) for weight in self.class_weights),
        )
