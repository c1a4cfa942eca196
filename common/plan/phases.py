"""What happens in each round: a plan is a list of phases, each with its own patients, parameters, views and noise."""

from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from common.plan.part import PlanPart

SamplingRate = Annotated[float, Field(ge=0, le=1)]
ClassWeight = Annotated[float, Field(gt=0, le=1)]


class Method(StrEnum):
    """How scans teach (privacy.md section 3). ``supervised`` uses labelled patients only.

    ``standardise``: patients of either stratum centre and scale the features; no label is read (docs/decisions/0010).
    ``ridge``: the head in one round, from the features' second moments of unlabelled patients and their products with
    the labels of labelled ones (docs/decisions/0042). ``prior``: where structures usually lie, from a sum of label maps
    (docs/decisions/0044).
    """

    SUPERVISED = "supervised"
    TEACHER_STUDENT = "teacher_student"
    FIXMATCH = "fixmatch"
    MEAN_TEACHER = "mean_teacher"
    RECONSTRUCTION = "reconstruction"
    STANDARDISE = "standardise"
    RIDGE = "ridge"
    PRIOR = "prior"


class Loss(StrEnum):
    """What a label map teaches at each voxel: soft Dice and cross-entropy, either alone, or Dice and focal loss.

    Sources: Milletari et al. 2016 (Dice), Lin et al. 2017 (focal), Zhu et al. 2019 (both together).
    """

    DICE_CE = "dice_ce"
    CE = "ce"
    DICE_FOCAL = "dice_focal"


class Schedule(StrEnum):
    """How the server's learning rate goes on after the warm-up of a phase (``common.plan.learning_rate``)."""

    CONSTANT = "constant"
    COSINE = "cosine"


class ViewRange(StrEnum):
    """How far the weak views of a segmentation go: as other tasks' do, or bent, with bias fields and larger turns."""

    MILD = "mild"
    WIDE = "wide"


class Axis(StrEnum):
    """A side of an image, towards: depth the head, height the back, width the patient's left (volumes)."""

    DEPTH = "depth"
    HEIGHT = "height"
    WIDTH = "width"


CLOSED_FORMS: Final = frozenset({Method.STANDARDISE, Method.RIDGE, Method.PRIOR})  # no step of the server's rule


class Trainable(StrEnum):
    """Which parameters a phase trains. Those of this and all earlier phases travel; the rest is the public start."""

    HEAD = "head"
    FEATURE_NORM = "feature_norm"
    PRIOR = "prior"
    ALL = "all"


class Phase(PlanPart):
    """Rounds of one kind.

    Patients: Poisson sampling with the stratum's rate (0 leaves the stratum out). ``clipping_norm`` C bounds what one
    labelled patient contributes to one sum (L2), ``unlabelled_clip_ratio`` * C what one unlabelled patient does.
    ``noise_multiplier`` sigma: the noise of the whole sum has standard deviation sigma * C in each coordinate.
    ``maximum_attempts``: how often a round may be tried in all, and what the noise is computed for.
    ``local_steps``: private steps in one round (more than 1 only with noise = local).
    ``learning_rate``, ``momentum``: of the server in this phase, where they differ from ``aggregation``.
    ``gate_balanced_accuracy``: unlabelled scans teach only while the teacher reaches it on the study's public images
    (0: no gate).
    ``teacher_decay``: 1 keeps the phase's first model as teacher, 0 takes the last released one. ``hidden_share``: of
    the patches that reconstruction hides. ``prior_smoothing_px``: of the mean label map (standard deviation).
    ``loss``: of label maps. ``class_weights``: of the classes, in the order of ``task.classes``. ``warm_up_rounds``: in
    which the learning rate rises; ``schedule``: how it goes on from there. ``view_range``: of a segmentation's
    weak views; ``mirrored_axes``: along which half of them are turned over, where mirrored anatomy means the same.
    ``ramp_up_rounds``: in which the mean teacher's weight rises, from ``unlabelled_from_round`` on.
    """

    LATER_KEYS = (
        "prior_smoothing_px", "loss", "warm_up_rounds", "schedule", "view_range", "mirrored_axes",
        "ramp_up_rounds",
    )  # fmt: skip

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    rounds: Annotated[int, Field(ge=1, le=100_000)]
    maximum_attempts: Annotated[int, Field(ge=1, le=200_000)]
    method: Annotated[Method, Field(strict=False)] = Method.SUPERVISED
    trainable: Annotated[Trainable, Field(strict=False)] = Trainable.ALL
    layout_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    labelled_sampling_rate: SamplingRate
    unlabelled_sampling_rate: SamplingRate = 0.0
    clipping_norm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    unlabelled_clip_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    noise_multiplier: Annotated[float, Field(ge=0, le=10_000)]
    local_steps: Annotated[int, Field(ge=1, le=1000)] = 1
    local_learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.1
    proximal_weight: Annotated[float, Field(ge=0, le=10)] = 0.0
    views_per_scan: Annotated[int, Field(ge=1, le=32)] = 1
    confidence_threshold: Annotated[float, Field(ge=0, le=1)] = 0.95
    unlabelled_weight: Annotated[float, Field(ge=0, le=10)] = 0.5
    unlabelled_from_round: Annotated[int, Field(ge=1, le=100_000)] = 1
    learning_rate: Annotated[float, Field(gt=0, le=1000)] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    teacher_decay: Annotated[float, Field(ge=0, le=1)] = 1.0
    gate_balanced_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.0
    hidden_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    class_weights: Annotated[tuple[ClassWeight, ...], Field(strict=False, max_length=64)] = ()
    prior_smoothing_px: Annotated[float, Field(ge=0, le=16)] = 0.5
    loss: Annotated[Loss, Field(strict=False)] = Loss.DICE_CE
    warm_up_rounds: Annotated[int, Field(ge=0, le=100_000)] = 0
    ramp_up_rounds: Annotated[int, Field(ge=0, le=100_000)] = 0
    schedule: Annotated[Schedule, Field(strict=False)] = Schedule.CONSTANT
    view_range: Annotated[ViewRange, Field(strict=False)] = ViewRange.MILD
    mirrored_axes: Annotated[tuple[Annotated[Axis, Field(strict=False)], ...], Field(strict=False, max_length=3)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.maximum_attempts < self.rounds:
            raise ValueError(f"maximum_attempts is {self.maximum_attempts}, it must be at least rounds ({self.rounds})")
        if self.labelled_sampling_rate == 0 and self.unlabelled_sampling_rate == 0:
            raise ValueError("both sampling rates are 0, so nobody would be trained on; set one above 0")
        self._check_schedule()
        labelled_only = self.method in {Method.SUPERVISED, Method.PRIOR}
        if labelled_only and self.unlabelled_sampling_rate > 0:
            raise ValueError(
                f"unlabelled_sampling_rate must be 0, because method = {self.method} uses no unlabelled scan"
            )
        label_free = self.method in {Method.STANDARDISE, Method.RECONSTRUCTION}
        if not labelled_only and not label_free and self.unlabelled_sampling_rate == 0:
            raise ValueError(f"unlabelled_sampling_rate must be above 0, because method = {self.method} needs it")
        if (self.method is Method.STANDARDISE) != (self.trainable is Trainable.FEATURE_NORM):
            raise ValueError("method = standardise and trainable = feature_norm belong together: set both or neither")
        if (self.method is Method.PRIOR) != (self.trainable is Trainable.PRIOR):
            raise ValueError("method = prior and trainable = prior belong together: set both or neither")
        if self.method is Method.PRIOR and self.rounds != 1:
            raise ValueError(f"rounds is {self.rounds}, method = prior takes one: its sum is released once; set 1")
        if self.method is Method.RIDGE:
            self._check_ridge()
        return self

    def _check_schedule(self) -> None:
        if self.rounds <= self.warm_up_rounds:
            raise ValueError(
                f"warm_up_rounds is {self.warm_up_rounds}, it must be below rounds ({self.rounds}): the learning rate "
                "would never be reached"
            )
        if self.schedule is Schedule.COSINE and self.rounds - self.warm_up_rounds < 2:
            raise ValueError("schedule = cosine needs two rounds after warm_up_rounds to fall in; set constant")

    def _check_ridge(self) -> None:
        if self.trainable is not Trainable.HEAD:
            raise ValueError(f"trainable is {self.trainable}, method = ridge solves for the head; set trainable = head")
        if self.rounds != 1:
            raise ValueError(f"rounds is {self.rounds}, method = ridge takes one: its sums are released once; set 1")
        if self.labelled_sampling_rate == 0:
            raise ValueError("labelled_sampling_rate must be above 0, because method = ridge needs labels")
