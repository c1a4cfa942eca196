"""Keys and what each is for: X25519 agreement, Ed25519 identities, and the purpose strings of HKDF.

A round has, for each site u, two fresh X25519 pairs and a seed (letters of Bonawitz et al., CCS 2017):

    (c_sk, c_pk)   seals shares:        k_enc(u -> v) = HKDF(X25519(c_u, c_v), salt = sid, info = E(.., "enc", u, v))
    (s_sk, s_pk)   pairwise masks:      k_uv = HKDF(X25519(s_u, s_v), salt = sid, info = E(.., "mask", min, max))
    b_u            self mask:           k_u  = HKDF(b_u, salt = sid, info = E(.., "self", u))

A purpose string names the use and both ends, so no key ever serves two purposes, two directions or two sessions.
HKDF is RFC 5869 with SHA-256, X25519 RFC 7748, Ed25519 RFC 8032. ``cryptography`` refuses an all-zero shared secret
(a peer's key of low order); ``agree`` turns that into None.
"""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.secagg.encoding import Field, labelled

KEY_BYTES = 32
REMEMBERED = 4096  # signatures, at some hundred bytes each
SIGNATURE_BYTES = 64


def public_key(secret: bytes | bytearray) -> bytes:
    """Return the X25519 public key (32 bytes) of a 32-byte secret key."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def agree(secret: X25519PrivateKey, peer: bytes) -> bytes | None:
    """Return X25519(secret, peer), or None for a peer key of low order (the shared secret would be zero)."""
    try:
        return secret.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:
        return None


def open_secret(secret: bytes | bytearray) -> X25519PrivateKey:
    """Return the key object of a 32-byte X25519 secret (made once for a whole list of peers: it costs as much)."""
    return X25519PrivateKey.from_private_bytes(secret)


def sealing_key(shared: bytes, session_id: bytes, sender: str, receiver: str) -> bytes:
    """Return k_enc(sender -> receiver): seals the shares that go one way between two sites."""
    return _derive(shared, session_id, labelled("enc", sender, receiver))


def pairwise_mask_key(shared: bytes, session_id: bytes, site_id: str, peer_id: str) -> bytes:
    """Return k_uv: the same for both ends, whoever asks."""
    return _derive(shared, session_id, labelled("mask", min(site_id, peer_id), max(site_id, peer_id)))


def self_mask_key(seed: bytes | bytearray, session_id: bytes, site_id: str) -> bytes:
    """Return k_u, the key of the self mask of ``site_id``."""
    return _derive(bytes(seed), session_id, labelled("self", site_id))


def mask_sign(site_id: str, peer_id: str) -> int:
    """Return the sign with which ``site_id`` adds the mask it shares with ``peer_id``: + for the smaller name."""
    return 1 if site_id < peer_id else -1


def sign(identity: Ed25519PrivateKey, label: str, *fields: Field) -> bytes:
    """Return Sig_u(label, ...) = Ed25519_u(E("fedward-secagg/2", label, ...)), 64 bytes."""
    return identity.sign(labelled(label, *fields))


def is_signed(signature: bytes, public: bytes, label: str, *fields: Field) -> bool:
    """Tell whether ``signature`` is Sig(label, ...) under the 32-byte Ed25519 key ``public``."""
    return _verifies(signature, public, labelled(label, *fields))


@lru_cache(maxsize=REMEMBERED)
def _verifies(signature: bytes, public: bytes, text: bytes) -> bool:
    """Check one signature. Remembered by all three: in a simulation every site of the process checks the same ones."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def _derive(secret: bytes, session_id: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=session_id, info=purpose).derive(secret)
