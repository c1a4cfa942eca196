"""Who somebody is: Ed25519 keys in files nobody else can read, and fingerprints one can read out over the phone.

Signatures are Ed25519 (RFC 8032). Secret keys lie as PKCS #8 PEM (RFC 8410), public keys as SubjectPublicKeyInfo PEM:
formats every toolbox reads. A key file that is a link, belongs to somebody else, or can be read by others is refused,
because its secret must be taken as known.
"""

import hashlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import FileUnreadableError
from common.files import read_bounded, write_new
from common.trust.errors import KeyExposedError, KeyInvalidError

MAX_KEY_BYTES = 4096
SECRET_BYTES = 32
FINGERPRINT_BITS = 120
# Crockford's base 32: no I, L, O or U, so nothing is mistaken when read aloud.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
AS_READ = {
    ord(heard): meant for heard, meant in zip("OIL-\u2010\u2011\u2013\u2014", ("0", "1", "1", *[""] * 5), strict=True)
}


def create_signing_key(path: Path) -> Ed25519PrivateKey:
    """Make a new Ed25519 key in ``path`` (mode 0600); an existing file is left alone.

    Raises: OutputExistsError, FileUnreadableError.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_new(path, pem, 0o600)
    return key


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read an Ed25519 secret key from a file that only its owner can read.

    Raises: KeyExposedError (link, foreign owner, readable by others), KeyInvalidError, FileUnreadableError,
    FileTooLargeError.
    """
    content = read_private_file(path, MAX_KEY_BYTES)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyInvalidError(f"{path}: not a PEM secret key; make one with `fedward-site keys new`") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyInvalidError(f"{path}: a key of another kind, expected Ed25519; make one with `fedward-site keys new`")
    return key


def write_public_key(path: Path, key: Ed25519PublicKey) -> None:
    """Write a public key as PEM; an existing file is left alone.

    Raises: OutputExistsError, FileUnreadableError.
    """
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_new(path, pem)


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read an Ed25519 public key (PEM).

    Raises: KeyInvalidError, FileUnreadableError, FileTooLargeError.
    """
    content = read_bounded(path, MAX_KEY_BYTES)
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyInvalidError(f"{path}: not a PEM public key; ask its owner for the .pub file") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyInvalidError(f"{path}: a public key of another kind, expected Ed25519")
    return key


def create_secret_file(path: Path) -> bytes:
    """Write ``SECRET_BYTES`` fresh random bytes to ``path`` (mode 0600) and return them; an existing file stays.

    The site secret keys pseudonyms and cache: whoever has it can link patients, who loses it rebuilds the cache.

    Raises: OutputExistsError, FileUnreadableError.
    """
    secret = secrets.token_bytes(SECRET_BYTES)
    write_new(path, secret, 0o600)
    return secret


def read_secret_file(path: Path) -> bytes:
    """Read a site secret of exactly ``SECRET_BYTES`` bytes.

    Raises: KeyExposedError, KeyInvalidError, FileUnreadableError, FileTooLargeError.
    """
    secret = read_private_file(path, MAX_KEY_BYTES)
    if len(secret) != SECRET_BYTES:
        raise KeyInvalidError(f"{path}: {len(secret)} bytes, a site secret has {SECRET_BYTES}; it may be damaged")
    return secret


def read_private_file(path: Path, max_bytes: int) -> bytes:
    """Read a file that nobody but its owner can read, without following a link.

    Checked on the open descriptor, so that the file cannot be swapped between check and reading.

    Raises: KeyExposedError, FileUnreadableError, FileTooLargeError.
    """
    if path.is_symlink():
        raise KeyExposedError(f"{path}: is a symbolic link; secret keys must be real files, give the file itself")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FileUnreadableError(f"{path}: cannot be opened ({error.strerror}); check name and rights") from None
    try:
        _require_private(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)  # fdopen refuses a folder with an error of its own, so it comes after the check
        raise
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise KeyInvalidError(f"{path}: longer than {max_bytes} bytes, so not a key; is it the right file?")
    return content


def _require_private(path: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise KeyInvalidError(f"{path}: not a regular file; give the name of a key file")
    if state.st_uid not in (os.geteuid(), 0):
        raise KeyExposedError(f"{path}: belongs to user {state.st_uid}, not to you; make a key of your own")
    mode = stat.S_IMODE(state.st_mode)
    if mode & 0o077:
        raise KeyExposedError(
            f"{path}: mode {mode:04o} lets others read it, the limit is 0600; treat the key as known, make a new one"
        )


def public_bytes(key: Ed25519PublicKey) -> bytes:
    """Return the 32 raw bytes of a public key (RFC 8032 section 5.1.5)."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return six groups of four characters, to be compared over the phone.

    120 bits of SHA-256 over a domain-separated public key: finding another key with the same fingerprint takes about
    2^120 tries. Read the whole line: comparing only its ends gives an attacker all but a few characters.
    """
    digest = hashlib.sha256(b"fedward fingerprint/1\0" + public_bytes(key)).digest()
    number = int.from_bytes(digest, "big") >> (256 - FINGERPRINT_BITS)
    characters = [ALPHABET[(number >> shift) & 31] for shift in range(FINGERPRINT_BITS - 5, -1, -5)]
    return "-".join("".join(characters[i : i + 4]) for i in range(0, len(characters), 4))


def same_fingerprint(heard: str, wanted: str) -> bool:
    """Tell whether a fingerprint as typed is the one wanted.

    As heard: case, spaces and dashes do not matter, and O is 0, I and L are 1, as Crockford's base 32 reads them.
    """
    return _heard(heard) == _heard(wanted)


def _heard(text: str) -> str:
    return "".join(text.upper().translate(AS_READ).split())


def sign(key: Ed25519PrivateKey, purpose: str, message: bytes) -> bytes:
    """Sign ``message`` for one purpose: a signature for one kind of document never fits another.

    Source: Ed25519, RFC 8032. The purpose is length-prefixed, so no two (purpose, message) pairs share signed bytes.
    """
    return key.sign(_purpose_bound(purpose, message))


def verify(key: Ed25519PublicKey, purpose: str, message: bytes, signature: bytes) -> bool:
    """Tell whether ``signature`` was made by ``key`` for exactly this purpose and message."""
    try:
        key.verify(signature, _purpose_bound(purpose, message))
    except InvalidSignature:
        return False
    return True


def _purpose_bound(purpose: str, message: bytes) -> bytes:
    label = purpose.encode()
    return b"fedward signature/1\0" + len(label).to_bytes(4, "big") + label + message
