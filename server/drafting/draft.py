"""A plan without what follows from the hospitals and the promise: names, keys, counts, layouts, noise.

Scenarios have one in their file (``[study]``), ``study new`` makes one from a recipe; ``server.drafting.building``
makes the plan of it.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.networks.settings import ENCODER, LEAST_LEVELS, MOST_LEVELS, MOST_PROJECTED
from common.plan.aggregation import Aggregation, SecureAggregation, Timing
from common.plan.part import PlanPart
from common.plan.phases import Phase
from common.plan.privacy import Evaluation, Privacy
from common.plan.task import SEEDED, Image, OutputName, Task

NOT_SET = "0" * 64
MOST_ATTEMPTS = 200_000


class DraftEncoder(PlanPart):
    """A public encoder: its ONNX file and card, relative to a scenario's file.

    ``outputs``: vectors that are joined, all of the card's if left out. ``views``: as in a plan.
    """

    file: Annotated[str, Field(max_length=4096)] = ""
    card: Annotated[str, Field(max_length=4096)] = ""
    outputs: Annotated[tuple[OutputName, ...], Field(strict=False, max_length=16)] = ()
    views: Annotated[int, Field(ge=0, le=32)] = 0


class DraftNetwork(PlanPart):
    """The network; ``initialisation``: "public" takes the shipped start weights that fit, "seeded" fresh ones.

    ``name = "encoder"``: a head on the features of ``encoder``; it has no width and no start weights.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")] = "small_cnn"
    width: Annotated[int, Field(ge=4, le=512)] = 16
    initialisation: Literal["public", "seeded"] = "public"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    prior: bool = False
    levels: Annotated[int, Field(ge=LEAST_LEVELS, le=MOST_LEVELS)] = LEAST_LEVELS
    hidden_units: Annotated[int, Field(ge=0, le=1024)] = 0
    projection: Annotated[int, Field(ge=0, le=MOST_PROJECTED)] = 0
    encoder: DraftEncoder | None = None

    @model_validator(mode="after")
    def _encoder_is_named(self) -> Self:
        if (self.name == ENCODER) != (self.encoder is not None):
            raise ValueError('name = "encoder" and the section [study.network.encoder] belong together')
        if self.encoder is not None and self.initialisation != SEEDED and "initialisation" in self.model_fields_set:
            raise ValueError('initialisation has no meaning with name = "encoder"; remove it')
        return self


class DraftPhase(Phase):
    """A phase of the plan without layout hash.

    ``noise_multiplier`` left out: computed, so that all phases together cost the promised epsilon; ``noise_ratio`` is
    this phase's noise relative to the others'. ``maximum_attempts`` left out: a tenth more than ``rounds``, plus two.
    ``rounds`` left out: as many as a private head is worth (``common.plan.head_steps``), with one attempt to spare for
    the closing round; one for ridge.
    """

    rounds: Annotated[int, Field(ge=1, le=100_000)] = 1

    layout_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = NOT_SET
    noise_multiplier: Annotated[float, Field(ge=0, le=10_000)] = 1.0
    maximum_attempts: Annotated[int, Field(ge=1, le=MOST_ATTEMPTS)] = MOST_ATTEMPTS
    noise_ratio: Annotated[float, Field(gt=0, le=100)] = 1.0


class StudyDraft(PlanPart):
    """The sections of the plan. ``secure_aggregation`` left out: thresholds that fit the number of hospitals."""

    task: Task
    image: Image
    network: DraftNetwork = DraftNetwork()
    privacy: Privacy
    secure_aggregation: SecureAggregation | None = None
    phases: Annotated[tuple[DraftPhase, ...], Field(strict=False, min_length=1, max_length=8)]
    aggregation: Aggregation = Aggregation()
    evaluation: Evaluation = Evaluation()
    timing: Timing = Timing(training_timeout_s=600.0, stage_timeout_s=60.0)
