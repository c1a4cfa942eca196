"""The roster: which sites a federation has and which key speaks for each of them.

The roster reaches a site out of band; the site's staff compare every fingerprint with its owner before they approve
it. The coordinator's signature is bookkeeping (which epoch is newest), not trust: a coordinator that could vouch for
keys could also invent hospitals and read the updates of the real ones.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.files import parsed_json, read_text
from common.trust.canonical import canonical_bytes, decode_base64, digest, encode_base64
from common.trust.errors import RosterBadSignatureError, RosterInvalidError
from common.trust.identity import fingerprint, public_bytes, sign, verify

FORMAT = "fedward-roster/1"
MAX_ROSTER_BYTES = 256 * 1024
MAX_SITES = 1000
NAME = re.compile(r"[a-z][a-z0-9-]{1,62}")
FIELDS = {"format", "federation", "epoch", "coordinator", "sites"}


@dataclass(frozen=True, eq=False)
class Roster:
    """Sites and keys of a federation at one epoch.

    ``federation`` and every site name match ``NAME``; ``epoch`` counts up from 1 with every change; names and keys are
    pairwise distinct. Raises: RosterInvalidError.
    """

    federation: str
    epoch: int
    coordinator: Ed25519PublicKey
    sites: dict[str, Ed25519PublicKey]

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.federation):
            raise RosterInvalidError("roster: `federation` must be lower-case letters, digits and hyphens")
        if type(self.epoch) is not int or not 1 <= self.epoch < 2**31:
            raise RosterInvalidError("roster: `epoch` must be a whole number from 1")
        if not 1 <= len(self.sites) <= MAX_SITES:
            raise RosterInvalidError(f"roster: {len(self.sites)} sites, allowed are 1 to {MAX_SITES}")
        for name in self.sites:
            if not NAME.fullmatch(name):
                raise RosterInvalidError("roster: a site's name must be lower-case letters, digits and hyphens")
        keys = [public_bytes(key) for key in (self.coordinator, *self.sites.values())]
        if len(set(keys)) != len(keys):
            raise RosterInvalidError("roster: one key stands for two parties; every site needs a key of its own")

    def document(self) -> dict[str, Any]:
        """Return the roster as plain values, sites by name."""
        return {
            "format": FORMAT,
            "federation": self.federation,
            "epoch": self.epoch,
            "coordinator": _encoded(self.coordinator),
            "sites": {name: _encoded(self.sites[name]) for name in sorted(self.sites)},
        }

    def digest(self) -> str:
        """Return the SHA-256 digest (hexadecimal) that plans and sessions are bound to."""
        return digest(FORMAT, canonical_bytes(self.document()))

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each site, to be confirmed with its owner before approval."""
        return {name: fingerprint(self.sites[name]) for name in sorted(self.sites)}


def signed_roster(roster: Roster, coordinator_key: Ed25519PrivateKey) -> bytes:
    """Return the roster file: canonical document and the coordinator's signature over its digest (RFC 8032)."""
    signature = sign(coordinator_key, FORMAT, bytes.fromhex(roster.digest()))
    file = {"roster": roster.document(), "signature": encode_base64(signature)}
    return canonical_bytes(file) + b"\n"


def read_roster(path: Path) -> Roster:
    """Read a signed roster and check its form and the signature of the coordinator named in it.

    The caller must still compare the fingerprints with the sites.
    Raises: RosterInvalidError, RosterBadSignatureError, FileUnreadableError, FileTooLargeError, NotUtf8Error.
    """
    try:
        file = parsed_json(read_text(path, MAX_ROSTER_BYTES))
    except ValueError:
        raise RosterInvalidError(f"{path}: not a signed roster; ask the coordinator for the file again") from None
    return checked_roster(file, path)


def checked_roster(file: Any, path: Path) -> Roster:
    """Check the form and the signature of a roster that was read from ``path`` (a roster file, or a kit with one).

    Raises: RosterInvalidError, RosterBadSignatureError.
    """
    try:
        if not isinstance(file, dict) or set(file) != {"roster", "signature"}:
            raise RosterInvalidError(f"{path}: expected `roster` and `signature` and nothing else")
        signature = decode_base64(file["signature"])
    except ValueError:
        raise RosterInvalidError(f"{path}: not a signed roster; ask the coordinator for the file again") from None
    roster = _parsed(file["roster"], path)
    if not verify(roster.coordinator, FORMAT, bytes.fromhex(roster.digest()), signature):
        raise RosterBadSignatureError(f"{path}: the signature does not fit; the file was changed after it was signed")
    return roster


def _parsed(document: Any, path: Path) -> Roster:
    if not isinstance(document, dict) or set(document) != FIELDS or document["format"] != FORMAT:
        raise RosterInvalidError(f"{path}: not a roster of format {FORMAT}")
    if not isinstance(document["sites"], dict) or not isinstance(document["federation"], str):
        raise RosterInvalidError(f"{path}: `sites` must map names to keys")
    sites = {name: _decoded(key, path) for name, key in document["sites"].items()}
    coordinator = _decoded(document["coordinator"], path)
    return Roster(federation=document["federation"], epoch=document["epoch"], coordinator=coordinator, sites=sites)


def _encoded(key: Ed25519PublicKey) -> str:
    return encode_base64(public_bytes(key))


def _decoded(text: Any, path: Path) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(decode_base64(text))
    except (ValueError, UnsupportedAlgorithm):
        raise RosterInvalidError(f"{path}: a key is not base64 of 32 bytes (Ed25519)") from None
