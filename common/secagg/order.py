"""The ORDER: everything about one attempt at one round that both sides must agree on, signed by the coordinator.

Source: section 6 of the protocol (R0) with its amendments: the *plan* is approved by people beforehand, the *order* is
signed by the online key that the plan delegates. ``round_number`` is the version of the model and may repeat after an
abort; ``attempt`` never does.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from common.secagg.encoding import digest
from common.secagg.vector import VectorSpec
from common.secagg.wire import (
    DIGEST,
    NAME,
    NAMES,
    WireError,
    pack,
    read_fields,
    real,
    unpack,
    whole,
    wire,
    write_fields,
)

MAX_ORDER_BYTES = 1 << 17
MAX_COUNT = (1 << 31) - 1
_MAX_NUMBER = (1 << 53) - 1


@dataclass(frozen=True, kw_only=True)
class Order:
    """The signed fields of an ORDER.

    Attributes:
        federation, epoch, roster_digest: which list of identities is meant.
        plan_digest, phase: which approved study plan and which phase of it (from 0).
        round_number: version of the model, from 1; may repeat. attempt: from 1, strictly increasing in a plan.
        nonce: 32 fresh bytes, so that no two orders are alike.
        cohort: U0, names sorted and distinct. threshold: t. minimum_survivors: s_min. colluders: c.
        meta_words, body_length, word_bits, guard_bits, coordinate_range, cohort_maximum: see ``VectorSpec``.
        layout_digest, task_digest, privacy_digest: the phase's parameters, training settings and privacy settings.
        model_digest: see ``model_digest``; model_bytes: size of the payload beside the message.
        deadline_unix_s: the session is wiped at this time.
    """

    federation: str = wire(NAME)
    epoch: int = wire(whole(0, _MAX_NUMBER))
    roster_digest: bytes = wire(DIGEST)
    plan_digest: bytes = wire(DIGEST)
    phase: int = wire(whole(0, 255))
    round_number: int = wire(whole(1, MAX_COUNT))
    attempt: int = wire(whole(1, MAX_COUNT))
    nonce: bytes = wire(DIGEST)
    cohort: tuple[str, ...] = wire(NAMES)
    threshold: int = wire(whole(0, MAX_COUNT))
    minimum_survivors: int = wire(whole(0, MAX_COUNT))
    colluders: int = wire(whole(0, MAX_COUNT))
    meta_words: int = wire(whole(0, MAX_COUNT))
    body_length: int = wire(whole(0, MAX_COUNT))
    word_bits: int = wire(whole(1, 64))
    guard_bits: int = wire(whole(0, 64))
    coordinate_range: float = wire(real(0.0, 1e30))
    cohort_maximum: int = wire(whole(1, MAX_COUNT))
    layout_digest: bytes = wire(DIGEST)
    task_digest: bytes = wire(DIGEST)
    privacy_digest: bytes = wire(DIGEST)
    model_digest: bytes = wire(DIGEST)
    model_bytes: int = wire(whole(0, _MAX_NUMBER))
    deadline_unix_s: int = wire(whole(0, _MAX_NUMBER))

    @property
    def vector(self) -> VectorSpec:
        """The form of the vectors of this round (not yet checked: call ``check`` on it)."""
        return VectorSpec(
            meta_words=self.meta_words,
            body_length=self.body_length,
            word_bits=self.word_bits,
            guard_bits=self.guard_bits,
            coordinate_range=self.coordinate_range,
            cohort_maximum=self.cohort_maximum,
        )

    @property
    def least_set(self) -> int:
        """max(t, s_min): no later set may be smaller."""
        return max(self.threshold, self.minimum_survivors)

    def share_index(self, site_id: str) -> int:
        """Return the x at which the polynomials are evaluated for a site: its place in the cohort, from 1."""
        return self.cohort.index(site_id) + 1


def encode_order(order: Order) -> bytes:
    """Return the canonical bytes of an order: what is hashed and signed."""
    return pack(write_fields(order))


def decode_order(octets: bytes) -> Order:
    """Return the order of its canonical bytes.

    Raises: WireError for anything else, also for a second encoding of the same order.
    """
    order = read_fields(Order, unpack(octets))
    if encode_order(order) != octets:
        raise WireError
    return order


def order_digest(octets: bytes) -> bytes:
    """Return ph = H("order", bytes of the order): what KEYS are bound to."""
    return digest("order", octets)


def model_digest(layout_digest: bytes, frozen_digest: bytes, model: bytes | bytearray | memoryview) -> bytes:
    """Return H("model", layout, frozen part, SHA-256(trainable part)).

    The frozen part never travels: each site puts the digest of its own copy here, so that a site with other frozen
    weights refuses instead of training another model.
    """
    return model_digest_of(layout_digest, frozen_digest, [model])


def model_digest_of(
    layout_digest: bytes, frozen_digest: bytes, parts: Iterable[bytes | bytearray | memoryview]
) -> bytes:
    """Return the digest of a model that comes in parts, for one that must not be whole in memory."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part)
    return digest("model", layout_digest, frozen_digest, hashed.digest())
