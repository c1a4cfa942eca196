"""How many sites must stand together, and what the server does with their sum."""

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from common.plan.part import PlanPart

LEAST_GROUPS: Final = 3  # a median of two is their mean
LEAST_HOSPITALS_IN_GROUPS: Final = 9
LEAST_SLOW_MULTIPLE: Final = 1.5


class SecureAggregation(PlanPart):
    """Thresholds and words of the masked sum (secure-aggregation.md section 6; Bonawitz et al., CCS 2017).

    n = ``cohort_size``, t = ``threshold``, s_min = ``minimum_survivors``, c = ``assumed_colluders``. The bounds
    2t > n + c, t <= n and s_min >= max(3, c + 2) are checked in ``plan.py``. ``word_bits``: bits of one masked word;
    ``guard_bits``: headroom in which a wrong unmasking shows. ``coordinate_range``: one coordinate of a site's vector
    is clipped to +- this value (it is not the clipping norm). With ``aggregation.robust`` all numbers are those of one
    group, which has a sum of its own; n is the most hospitals in it.
    """

    cohort_size: Annotated[int, Field(ge=3, le=1000)]
    threshold: Annotated[int, Field(ge=2, le=1000)]
    minimum_survivors: Annotated[int, Field(ge=1, le=1000)]
    assumed_colluders: Annotated[int, Field(ge=0, le=998)] = 1
    word_bits: Literal[16, 21, 32] = 32
    guard_bits: Annotated[int, Field(ge=1, le=8)] = 4
    coordinate_range: Annotated[float, Field(gt=0, le=1e6)] = 64.0

    @property
    def honest_survivors(self) -> int:
        """Honest sites certainly in every sum, h = s_min - c: those whose noise shares can be relied on."""
        return self.minimum_survivors - self.assumed_colluders

    @property
    def least_cohort(self) -> int:
        """The fewest sites whose sum can be opened: max(t, s_min, 3)."""
        return max(self.threshold, self.minimum_survivors, 3)


class ServerRule(StrEnum):
    """The server's step on the mean. Sources: McMahan et al. 2017 (mean), Reddi et al. 2021 (adam, yogi, momentum)."""

    MEAN = "mean"
    MOMENTUM = "momentum"
    ADAM = "adam"
    YOGI = "yogi"


class Aggregation(PlanPart):
    """The server's optimiser: it sees the unmasked sum only, so everything here is post-processing.

    ``learning_rate`` multiplies the mean; ``average_decay`` is that of the exponential average of models
    (0 = none). ``model_selection``: which model is the study's result; ``best_noised`` is the best scored one of the
    last phase, its averaged model included. ``stop_after_scores``: a phase ends early after so many noised scores in a
    row that did not beat the best one before them by more than ``least_gain`` (0: never). What scores decide is decided
    by noised counts only, and only where they mean something (``common.plan.selection``). ``robust``: the step is made
    on the mean of all hospitals, or on the coordinate-wise median of the means of disjoint random groups, each with a
    secure aggregation of its own (Yin et al. 2018, over groups as in Minsker 2015).
    """

    LATER_KEYS = ("robust",)

    rule: Annotated[ServerRule, Field(strict=False)] = ServerRule.MOMENTUM
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    second_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    adaptivity: Annotated[float, Field(gt=0, le=1)] = 1e-3
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    model_selection: Literal["last_average", "last", "best_noised"] = "last_average"
    stop_after_scores: Annotated[int, Field(ge=0, le=1000)] = 0
    least_gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    robust: Literal["none", "median_of_groups"] = "none"

    @property
    def heeds_scores(self) -> bool:
        """Whether noised scores decide anything: which model is the result, or when a phase ends."""
        return self.model_selection == "best_noised" or self.stop_after_scores > 0

    @property
    def takes_median(self) -> bool:
        """Whether a round's hospitals are divided into groups, and the median of their means moves the model."""
        return self.robust == "median_of_groups"


class Timing(PlanPart):
    """Public times. A reply of the training stage is held until the next multiple of ``reply_slot_s``.

    Training time follows the private batch; the slot keeps it from leaving the site. 0 is for plans without privacy,
    and in a plan of before stands for the default (``common.plan.reply_slot``).
    ``slow_multiple``: once enough sites answered a stage, those that take longer than so many times the median of these
    are not waited for, and count as absent (never within the first 30 s; 0: all are waited for until the timeout).
    """

    LATER_KEYS = ("slow_multiple",)

    training_timeout_s: Annotated[float, Field(gt=0, le=172_800)] = 3600.0
    stage_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    reply_slot_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    slow_multiple: Annotated[float, Field(ge=0, le=1000)] = 4.0

    @model_validator(mode="after")
    def _patient(self) -> Self:
        if 0 < self.slow_multiple < LEAST_SLOW_MULTIPLE:
            raise ValueError(
                f"slow_multiple is {self.slow_multiple:g}, it must be 0 (wait for everybody) or at least "
                f"{LEAST_SLOW_MULTIPLE:g}: half of all hospitals are slower than the median"
            )
        return self
