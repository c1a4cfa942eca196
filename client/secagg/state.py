"""What a site's session holds at each stage, and nothing more: what is no longer needed is not in the next state.

Secrets live in RAM only. The three of the site itself are bytearrays that are overwritten when a state is wiped; keys
derived from them, peers' shares and the copies inside OpenSSL are released, not overwritten: Python cannot do better.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.secagg.messages import Keys
from common.secagg.order import Order
from common.secagg.sealed_shares import SharePair


@dataclass(frozen=True, slots=True, repr=False)
class Contribution:
    """What a site adds to the sum.

    Shapes: meta (order.meta_words,) uint64; body (order.body_length,) float32, or int32 / int64 lattice values (see
    ``common.secagg.vector``). Noise is in both already.
    """

    meta: NDArray[np.uint64]
    body: NDArray[Any]


@dataclass(frozen=True, slots=True, repr=False)
class OwnSecrets:
    """c_sk, s_sk and b_u of one session, 32 bytes each."""

    sealing_secret: bytearray
    mask_secret: bytearray
    seed: bytearray

    def wipe(self) -> None:
        """Overwrite them with zeros."""
        for secret in (self.sealing_secret, self.mask_secret, self.seed):
            secret[:] = bytes(len(secret))


@dataclass(frozen=True, slots=True, repr=False)
class IdleState:
    """No session; also what is left of a dead one."""


@dataclass(frozen=True, slots=True, repr=False)
class KeyedState:
    """Trained, and KEYS sent."""

    order: Order
    order_digest: bytes
    own_keys: Keys
    secrets: OwnSecrets
    contribution: Contribution


@dataclass(frozen=True, slots=True, repr=False)
class Peer:
    """What this site keeps of another one after the key list: the key of what it seals, and the common mask key."""

    opening_key: bytes
    pairwise_key: bytes


@dataclass(frozen=True, slots=True, repr=False)
class SharedState:
    """SHARES sent; sid is known. ``own_pair``: the shares of one's own secrets that stay here."""

    order: Order
    session_id: bytes
    peers: dict[str, Peer]
    own_pair: SharePair
    secrets: OwnSecrets
    contribution: Contribution


@dataclass(frozen=True, slots=True, repr=False)
class MaskedState:
    """MASKED sent; own secrets and update are gone. ``pairs``: the shares of every dealer in U2, one's own included."""

    order: Order
    session_id: bytes
    dealers_digest: bytes
    pairs: dict[str, SharePair]


@dataclass(frozen=True, slots=True, repr=False)
class ConsistentState:
    """CONSISTENT sent: U3 is fixed for this site, and with it which share of whom it may open."""

    order: Order
    session_id: bytes
    survivors_digest: bytes
    survivors: frozenset[str]
    pairs: dict[str, SharePair]


@dataclass(frozen=True, slots=True, repr=False)
class UnmaskedState:
    """UNMASK sent: no secret is left. Also the state after RESULT."""

    order: Order
    session_id: bytes
    survivors_digest: bytes


FINGERPRINT_BYTES = 1 << 20

SiteState: TypeAlias = IdleState | KeyedState | SharedState | MaskedState | ConsistentState | UnmaskedState


def reference_of(state: SiteState) -> bytes:
    """Return what a refusal refers to: the session, else the order, else zeros."""
    if isinstance(state, IdleState):
        return bytes(32)
    return state.order_digest if isinstance(state, KeyedState) else state.session_id


def wipe(state: SiteState) -> None:
    """Overwrite the secrets of a state and forget peers' shares."""
    if isinstance(state, KeyedState | SharedState):
        state.secrets.wipe()
    if isinstance(state, SharedState):
        state.peers.clear()
    if isinstance(state, MaskedState | ConsistentState):
        state.pairs.clear()


def fingerprint_of(order: Order, contribution: Contribution) -> bytes:
    """Check the shapes (here, while a failure costs the others nothing) and return what knows the vector again."""
    if contribution.meta.shape != (order.meta_words,) or contribution.body.shape != (order.body_length,):
        raise ValueError("the contribution has another shape than the order")
    # The first MiB of the body is enough to know a noised vector again, and costs 0.7 ms.
    body = contribution.body.data.cast("B")[:FINGERPRINT_BYTES]
    return hashlib.sha256(contribution.meta.tobytes() + body).digest()
