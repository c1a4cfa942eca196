"""The two shares that one site deals to another, sealed so that only that other site can read them.

    ct_uv = ChaCha20-Poly1305(k_enc(u -> v), nonce 0, [b_u]_v || [s_sk_u]_v, aad = E(sid, u, v))

The zero nonce is safe because the key seals exactly one text: it is bound to the session, the direction and both ends,
and a session deals once. Source: RFC 8439; Bonawitz et al., CCS 2017, round 1.
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from common.secagg.encoding import encode_injectively
from common.secagg.shamir import SHARE_BYTES

SEALED_BYTES = 2 * SHARE_BYTES + 16
_NONCE = bytes(12)


@dataclass(frozen=True, slots=True, repr=False)
class SharePair:
    """The share of the self-mask seed b and the share of the mask key s_sk, 66 bytes each, of one dealer."""

    seed_share: bytes
    key_share: bytes


def seal(key: bytes, pair: SharePair, *, session_id: bytes, dealer: str, receiver: str) -> bytes:
    """Return ct of the module's head, always 148 bytes."""
    bound = encode_injectively(session_id, dealer, receiver)
    return ChaCha20Poly1305(key).encrypt(_NONCE, pair.seed_share + pair.key_share, bound)


def unseal(key: bytes, sealed: bytes, *, session_id: bytes, dealer: str, receiver: str) -> SharePair | None:
    """Return the pair, or None where the text was not sealed by ``dealer`` for ``receiver`` in this session."""
    bound = encode_injectively(session_id, dealer, receiver)
    try:
        plain = ChaCha20Poly1305(key).decrypt(_NONCE, sealed, bound)
    except InvalidTag:
        return None
    return SharePair(plain[:SHARE_BYTES], plain[SHARE_BYTES:]) if len(plain) == 2 * SHARE_BYTES else None
