"""What this hospital allows a round of secure aggregation to be: fixed at approval, never taken from the network."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from common.plan.attempts import Slots
from common.plan.errors import PlanWeakThresholdError
from common.secagg.keys import KEY_BYTES
from common.secagg.thresholds import SMALLEST_SUM, least_survivors


class SecondAttempt(StrEnum):
    """Whether a model whose sum was opened may be ordered again (always at a higher attempt, always charged).

    NEVER: updates without noise. Two sums over different survivors would show one site's update.
    FRESH_NOISE: distributed noise. Never with the same vector: two sums would expose one site's share of the noise,
    which alone hides little.
    STORED_UPDATE: local noise. Each site's update hides itself, so even a stored one may be sent again.
    """

    NEVER = "never"
    FRESH_NOISE = "fresh_noise"
    STORED_UPDATE = "stored_update"


@dataclass(frozen=True, kw_only=True)
class PhaseRules:
    """One phase of the approved plan, as far as the protocol is concerned.

    Attributes:
        layout_digest, task_digest, privacy_digest: of the trainable parameters, training settings, privacy settings.
        frozen_digest: SHA-256 of this site's own copy of the frozen weights (zeros where there are none).
        model_bytes: size of the trainable part that an ORDER carries.
        rounds: planned rounds of the phase. maximum_attempts: how many may release something here (a masked vector
            may have left); the noise is computed for so many. slots: the same with what other phases leave unused
            (``common.plan.attempts``); None: nothing is lent.
        meta_words, body_length, coordinate_range: the vector, see ``common.secagg.vector``.
        word_bits: the word sizes the plan may use; only 32 where the noise is distributed, unless ``plan check``
            proved the narrower bounds. minimum_guard_bits: at least 1, without which nothing is detected; exactly so
            many where the noise is distributed, because more of them coarsen the lattice and cut the noise.
        cohort_maximum: what the vector's words are made for, exactly (the same reason); None: at most the roster.
        second_attempt: see there.
        reply_slot_s: KEYS leave at a multiple of this after the ORDER came (0: at once).
    """

    layout_digest: bytes
    task_digest: bytes
    privacy_digest: bytes
    frozen_digest: bytes = bytes(32)
    model_bytes: int
    rounds: int
    maximum_attempts: int
    slots: Slots | None = None
    meta_words: int
    body_length: int
    coordinate_range: float
    word_bits: frozenset[int] = frozenset({32})
    minimum_guard_bits: int = 1
    cohort_maximum: int | None = None
    second_attempt: SecondAttempt = SecondAttempt.FRESH_NOISE
    reply_slot_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SitePolicy:
    """What a site's session checks every order against.

    Attributes:
        site_id: this site. federation, epoch, roster_digest, identities: the roster as hospital staff installed it;
            identities maps each site to its Ed25519 public key (32 bytes).
        order_key: the Ed25519 public key (32 bytes) that the approved plan delegates for orders.
        plan_digest, phases: the approved plan.
        confirmed: the sites of the roster that a person here confirmed, this one included; all others are counted with
            the colluders. minimum_confirmed: how many of them every stage must hold; None: minimum_survivors.
        minimum_cohort: n_min. minimum_survivors: s_min. colluders: c, the sites assumed to help the server.
        maximum_session_s: longest time from ORDER to its deadline. maximum_orders: of the plan, over all phases,
            whatever became of them.
    Raises: PlanWeakThresholdError if the site's own thresholds would let a single update be seen; ValueError if a key
        has another length or the site is not in the roster.
    """

    site_id: str
    federation: str
    epoch: int
    roster_digest: bytes
    identities: Mapping[str, bytes]
    order_key: bytes
    plan_digest: bytes
    phases: tuple[PhaseRules, ...]
    confirmed: frozenset[str]
    minimum_confirmed: int | None = None
    minimum_cohort: int = 3
    minimum_survivors: int = 3
    colluders: int = 1
    maximum_session_s: float = 86_400.0
    maximum_orders: int = 1000

    def __post_init__(self) -> None:
        """Refuse a policy that could not protect anybody."""
        floor = least_survivors(self.colluders)
        if self.colluders < 0 or self.minimum_survivors < floor or self.minimum_cohort < SMALLEST_SUM:
            raise PlanWeakThresholdError(
                f"minimum_survivors is {self.minimum_survivors} and minimum_cohort {self.minimum_cohort}; with "
                f"{self.colluders} colluding sites they must be at least {floor} and {SMALLEST_SUM}"
            )
        if self.least_confirmed < floor:
            raise PlanWeakThresholdError(
                f"minimum_confirmed is {self.least_confirmed}; with {self.colluders} colluding sites it must be at "
                f"least {floor}"
            )
        keys = [*self.identities.values(), self.order_key]
        if self.site_id not in self.identities or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"{self.site_id!r} must be in the roster, and each key must have {KEY_BYTES} bytes")

    @property
    def slots(self) -> tuple[Slots, ...]:
        """The attempts that each phase brings."""
        return tuple(phase.slots or Slots(phase.maximum_attempts) for phase in self.phases)

    @property
    def least_confirmed(self) -> int:
        """How many confirmed sites every stage must hold, this one included."""
        return self.minimum_survivors if self.minimum_confirmed is None else self.minimum_confirmed

    def count_confirmed(self, names: Iterable[str]) -> int:
        """Return how many of these sites are known to be real."""
        return len(self.confirmed.intersection(names))

    def colluders_among(self, names: Collection[str], colluders: int) -> int:
        """Return c as this site must see it: the colluders assumed, and every site that nobody confirmed."""
        return colluders + len(names) - self.count_confirmed(names)

    @property
    def guaranteed_honest(self) -> int:
        """The honest sites in any sum, h = s_min - c: distributed noise is made for this number."""
        return self.minimum_survivors - self.colluders
