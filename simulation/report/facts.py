"""What a report is made from: plain values out of the journal, the plan, the outboxes and the baselines."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from client.final_model.structure_measures import StructureFigures
from common.encoders.card import EncoderCard
from common.plan.plan import StudyPlan


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class Outcome(StrEnum):
    """What became of an attempt. EVALUATED: the closing one, which only scores the last model."""

    APPLIED = "applied"
    ABORTED = "aborted"
    EVALUATED = "evaluated"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at one round, as the coordinator's journal has it.

    ``phase``: index in the plan. ``participants``: sites in the sum. ``charged``: sites whose ledger counts the
    attempt as spent. ``absent``: site -> stage in which it was lost. ``refused``: site -> check that it named.
    ``counts``: summed, noised evaluation counts (``common.privacy.metrics``) of the model of ``scored_round``, in
    patients; empty where nothing was scored. ``counts_noise_stddev``: noise of each count, in patients.
    """

    number: int
    phase: int
    round_number: int
    outcome: Outcome
    participants: tuple[str, ...] = ()
    charged: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0
    scored_round: int = 0
    counts: tuple[float, ...] = ()
    counts_noise_stddev: float = 0.0


@dataclass(frozen=True, slots=True)
class SentKind:
    """What a site's outbox recorded for one kind of message."""

    messages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """One hospital: its key's fingerprint, and what left it (kind -> totals of its own outbox)."""

    fingerprint: str
    sent: Mapping[str, SentKind]


@dataclass(frozen=True, slots=True)
class Picture:
    """A public image with the outlines of expert and model (PNG), and the model's mean Dice in it."""

    png: bytes
    dice: float


@dataclass(frozen=True, slots=True)
class PublicScore:
    """The final model on public images that no hospital holds; outside the protocol, for research.

    ``measure``: "AUC" or "Dice". ``shares``: class -> share of its images answered right. ``curve``: ROC points (false
    positive rate, true positive rate). ``calibration``: (confidence, share answered right, images) by bin. ``dice``:
    structure -> mean Dice of a segmentation. ``structures``: structure -> boundaries, volumes, lesions. ``pictures``:
    some images with outlines. All may be empty.
    """

    measure: str
    estimate: Estimate
    images: int
    shares: Mapping[str, Estimate] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()
    calibration: tuple[tuple[float, float, float], ...] = ()
    dice: Mapping[str, Estimate] = field(default_factory=dict)
    structures: Mapping[str, StructureFigures] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()


class Role(StrEnum):
    """What a model in the comparison stands for; decides its colour and its place."""

    FEDERATION = "federation"
    ALONE = "alone"
    VARIANT = "variant"
    CEILING = "ceiling"


@dataclass(frozen=True, slots=True)
class Compared:
    """One row of "what it bought": the same test images, another way to train."""

    key: str
    label: str
    role: Role
    estimate: Estimate
    note: str = ""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Everything a report says, before any arithmetic.

    ``compared`` holds the federation itself first. ``test_by_round``: (rounds applied, public test score).
    ``encoder``: the card of the plan's public encoder.
    """

    plan: StudyPlan
    attempts: tuple[Attempt, ...]
    sites: Mapping[str, SiteFacts]
    test: PublicScore | None
    compared: tuple[Compared, ...]
    seconds: float
    is_finished: bool
    version: str
    is_simulation: bool = True
    test_by_round: tuple[tuple[int, PublicScore], ...] = ()
    encoder: EncoderCard | None = None
