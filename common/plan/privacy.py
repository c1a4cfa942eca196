"""What is promised to each patient."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.plan.part import PlanPart


class NoisePlacement(StrEnum):
    """Where the noise is added (privacy.md section 2).

    ``distributed``: each site adds its share, the sum of the guaranteed honest survivors carries it all; trusts secure
    aggregation. ``local``: each site adds all of it; trusts nobody. ``none``: no privacy, for research on public data;
    a site's policy refuses it.
    """

    DISTRIBUTED = "distributed"
    LOCAL = "local"
    NONE = "none"


class Privacy(PlanPart):
    """The guarantee: each patient is (``epsilon``, ``delta``)-private against whoever sees all that leaves the sites.

    Unit: the patient with all scans. Neighbouring relation: zero-out (a patient's record becomes a null record of the
    same stratum), so declared patient counts may be public. Source: docs/privacy.md.
    """

    noise: Annotated[NoisePlacement, Field(strict=False)] = NoisePlacement.DISTRIBUTED
    epsilon: Annotated[float, Field(gt=0, le=50)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1e-2)] | None = None
    unit: Literal["patient"] = "patient"
    neighbouring_relation: Literal["zero_out"] = "zero_out"

    @model_validator(mode="after")
    def _promise_or_none(self) -> Self:
        given = (self.epsilon is not None) + (self.delta is not None)
        if self.noise is NoisePlacement.NONE and given:
            raise ValueError("epsilon and delta must be absent, because noise = none promises nothing")
        if self.noise is not NoisePlacement.NONE and given < 2:
            raise ValueError("epsilon and delta must both be given, unless noise = none")
        return self


class Evaluation(PlanPart):
    """How released models are scored on the sites' held-out patients: noised counts inside the masked vector.

    ``held_out``: a fifth of each site's labelled patients (chosen by keyed hash) is scored and never trained on;
    without it nothing is scored. ``epsilon``: the budget of those patients over the whole study, with the study's
    delta. ``every_rounds``: a score every so many rounds, plus one at the end. ``score_bins``: public bins of the
    score histogram.
    """

    every_rounds: Annotated[int, Field(ge=1, le=1000)] = 10
    epsilon: Annotated[float, Field(gt=0, le=50)] = 1.0
    held_out: bool = True
    score_bins: Annotated[int, Field(ge=4, le=256)] = 32
