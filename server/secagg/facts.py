"""What the server knows of one attempt: the order, the accepted answers by site, the digests that bind the stages."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.secagg.messages import Consistent, Keys, Masked, Shares, Unmask
from common.secagg.order import Order


@dataclass(slots=True)
class RoundFacts:
    """Facts of one attempt; each dictionary is complete once its stage is closed.

    Attributes:
        identities: the roster, site -> Ed25519 public key. announced: attempt -> digest of the RESULT that was sent.
        keys, shares, masked, consistent, unmask: accepted answers; their names are U1, U2, U3, U4 and who unmasked.
        session_id, dealers_digest, survivors_digest: sid, u2h, u3h; empty until known.
    """

    order: Order
    order_digest: bytes
    identities: Mapping[str, bytes]
    announced: Mapping[int, bytes] = field(default_factory=dict)
    keys: dict[str, Keys] = field(default_factory=dict)
    shares: dict[str, Shares] = field(default_factory=dict)
    masked: dict[str, Masked] = field(default_factory=dict)
    consistent: dict[str, Consistent] = field(default_factory=dict)
    unmask: dict[str, Unmask] = field(default_factory=dict)
    session_id: bytes = b""
    dealers_digest: bytes = b""
    survivors_digest: bytes = b""

    @property
    def dropped_after_shares(self) -> list[str]:
        """U2 without U3, sorted: whose pairwise masks must be rebuilt."""
        return sorted(set(self.shares) - set(self.masked))
