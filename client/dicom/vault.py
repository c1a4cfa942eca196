"""Authenticated encryption of everything in the cache: AES-256-GCM (NIST SP 800-38D), one random nonce for each blob.

    K_data  = HKDF-SHA256(site secret, salt = cache_id, info = "fedward cache data/1 " || settings digest)
    sealed  = nonce (12) || AES-256-GCM(K_data, nonce, plaintext, AAD) || tag (16)
    AAD     = "fedward cache/1" || cache_id || kind || name          (each part with its length)

The name binds a blob to its place (record, segment), so blobs cannot change places, and a cache whose settings were
edited does not open. Random 96-bit nonces under one key are safe for 2^32 blobs; a cache holds far fewer.
"""

import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from client.dicom.errors import CacheInvalidError
from client.dicom.pseudonyms import derive

NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES
CACHE_ID_BYTES = 16
Buffer = bytes | bytearray | memoryview


class Vault:
    """Seals and opens the blobs of one cache."""

    def __init__(self, secret: bytes, cache_id: bytes, settings_digest: bytes) -> None:
        bound = settings_digest.hex()
        self._cipher = AESGCM(derive(secret, f"fedward cache data/1 {bound}", cache_id))
        self._prefix = _parts(b"fedward cache/1", cache_id)
        self.key_check = derive(secret, f"fedward cache check/1 {bound}", cache_id)[:16]

    def knows(self, key_check: bytes) -> bool:
        """Tell whether the cache was made with this site secret and these settings."""
        return hmac.compare_digest(self.key_check, key_check)

    def seal(self, kind: str, name: str, plaintext: Buffer) -> bytes:
        """Encrypt one blob under a fresh nonce."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plaintext, self._associated(kind, name))

    def open(self, kind: str, name: str, sealed: Buffer) -> bytes:
        """Decrypt one blob.

        Raises: CacheInvalidError when it was changed, moved, cut, or belongs to another cache.
        """
        view = memoryview(sealed)
        try:
            return self._cipher.decrypt(bytes(view[:NONCE_BYTES]), view[NONCE_BYTES:], self._associated(kind, name))
        except (InvalidTag, ValueError):
            raise CacheInvalidError(_DAMAGED.format(kind)) from None

    def open_into(self, kind: str, name: str, sealed: memoryview, target: memoryview) -> None:
        """Decrypt one blob into ``target`` (exactly as long as the plaintext), without a copy.

        Raises: CacheInvalidError.
        """
        nonce = bytes(sealed[:NONCE_BYTES])
        try:
            self._cipher.decrypt_into(nonce, sealed[NONCE_BYTES:], self._associated(kind, name), target)
        except (InvalidTag, ValueError):
            raise CacheInvalidError(_DAMAGED.format(kind)) from None

    def _associated(self, kind: str, name: str) -> bytes:
        return self._prefix + _parts(kind.encode(), name.encode())


_DAMAGED = "a {} blob of the cache was changed or cut; delete the cache folder and ingest again"


def _parts(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
