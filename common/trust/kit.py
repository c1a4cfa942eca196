"""A kit: what the coordinator gives each hospital so that it can join. All of it is public, signed by the coordinator.

    coordinator -> site:  federation, coordinator's key, address, certificate authority, pointer digest, Flower, roster

Whoever can swap a kit can send a hospital to another coordinator: the site therefore compares the coordinator's
fingerprint over the phone once, and from then on takes kits of that key only (``client.commands.join``).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.files import read_bounded
from common.trust.canonical import canonical_bytes, encode_base64
from common.trust.errors import KitInvalidError, RosterBadSignatureError, RosterInvalidError
from common.trust.identity import fingerprint, public_bytes
from common.trust.roster import MAX_ROSTER_BYTES, NAME, Roster, checked_roster
from common.trust.signed_document import SignedDocumentError, decoded_key, read_signed, signed_document

FORMAT: Final = "fedward-kit/1"
MAX_CERTIFICATE_CHARACTERS: Final = 64 * 1024
MAX_CERTIFICATES: Final = 16
MAX_KIT_BYTES: Final = MAX_ROSTER_BYTES + 2 * MAX_CERTIFICATE_CHARACTERS
FIELDS: Final = {
    "format", "federation", "coordinator", "address", "ca_certificate", "pointer_digest", "flwr", "roster",
}  # fmt: skip
ADDRESS: Final = re.compile(r"(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):(?P<port>[1-9][0-9]{0,4})")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
VERSION: Final = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Kit:
    """Where the coordinator is and how to know it.

    ``address``: host name or IPv4 address, colon, port, as hospitals reach it. ``ca_certificate``: PEM, one certificate
    or a few; the gateway's certificate must be signed by one of them. ``pointer_digest``: SHA-256 (hexadecimal) of the
    only Flower app bundle an agent takes. ``flwr``: the version of Flower all run. ``roster``: None before the first
    one is signed; else it is of the same federation and coordinator. Raises: KitInvalidError.
    """

    federation: str
    coordinator: Ed25519PublicKey
    address: str
    ca_certificate: str
    pointer_digest: str
    flwr: str
    signed_roster: dict[str, Any] | None
    roster: Roster | None

    def __post_init__(self) -> None:
        found = ADDRESS.fullmatch(self.address)
        checks = {
            "federation": bool(NAME.fullmatch(self.federation)),
            "address": found is not None and int(found["port"]) < 2**16,
            "pointer_digest": bool(DIGEST.fullmatch(self.pointer_digest)),
            "flwr": bool(VERSION.fullmatch(self.flwr)),
            "ca_certificate": _holds_certificates(self.ca_certificate),
        }
        for name, good in checks.items():
            if not good:
                raise KitInvalidError(f"kit: `{name}` does not have the form it must have")
        if self.roster is not None and (
            self.roster.federation != self.federation
            or public_bytes(self.roster.coordinator) != public_bytes(self.coordinator)
        ):
            raise KitInvalidError("kit: its roster is of another federation or coordinator")

    @property
    def host(self) -> str:
        """The host name or address to connect to, which the gateway's certificate must name."""
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        """The TCP port to connect to."""
        return int(self.address.rpartition(":")[2])

    def roster_file(self) -> bytes:
        """Return the signed roster as the bytes of a roster file, as ``common.trust.roster.read_roster`` takes it.

        Raises: KitInvalidError when the kit has no roster yet.
        """
        if self.signed_roster is None:
            raise KitInvalidError("kit: it has no roster yet; ask the coordinator for one made after `roster sign`")
        return canonical_bytes(self.signed_roster) + b"\n"

    def document(self) -> dict[str, Any]:
        """Return the kit as plain values, without the signature."""
        return {
            "format": FORMAT,
            "federation": self.federation,
            "coordinator": encode_base64(public_bytes(self.coordinator)),
            "address": self.address,
            "ca_certificate": self.ca_certificate,
            "pointer_digest": self.pointer_digest,
            "flwr": self.flwr,
            "roster": self.signed_roster,
        }

    def fingerprint(self) -> str:
        """Return the fingerprint of the coordinator's key, to be compared over the phone."""
        return fingerprint(self.coordinator)


def new_kit(document: dict[str, Any], origin: Path) -> Kit:
    """Return the kit of plain values (``Kit.document``); ``roster`` in it is a signed roster or None.

    ``origin`` is named in errors about the roster. Raises: KitInvalidError.
    """
    texts = ("federation", "address", "ca_certificate", "pointer_digest", "flwr")
    if not all(isinstance(document[name], str) for name in texts):
        raise KitInvalidError("kit: a field that must be text is none")
    try:
        coordinator = decoded_key(document["coordinator"])
        signed = document["roster"]
        roster = None if signed is None else checked_roster(signed, origin)
    except (SignedDocumentError, RosterInvalidError, RosterBadSignatureError) as error:
        raise KitInvalidError(f"kit: {error}") from None
    return Kit(**{name: document[name] for name in texts}, coordinator=coordinator, signed_roster=signed, roster=roster)


def signed_kit(kit: Kit, coordinator_key: Ed25519PrivateKey) -> bytes:
    """Return the kit file: canonical JSON (RFC 8785) with the coordinator's signature (RFC 8032) over all of it."""
    return signed_document(kit.document(), coordinator_key)


def read_kit(path: Path) -> Kit:
    """Read a kit and check its form, its signature and its roster's.

    The caller must still compare the coordinator's fingerprint.
    Raises: KitInvalidError, FileUnreadableError, FileTooLargeError.
    """
    return checked_kit(read_bounded(path, MAX_KIT_BYTES), path)


def checked_kit(content: bytes, origin: Path) -> Kit:
    """Check the content of a kit file, at most ``MAX_KIT_BYTES``; ``origin`` is named in errors.

    Raises: KitInvalidError.
    """
    try:
        return new_kit(read_signed(content, form=FORMAT, fields=FIELDS, signer="coordinator"), origin)
    except SignedDocumentError as error:
        raise KitInvalidError(f"{origin}: {error}; ask the coordinator for the kit again") from None


def _holds_certificates(pem: str) -> bool:
    if len(pem) > MAX_CERTIFICATE_CHARACTERS or not pem.isascii():
        return False
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return False
    return 1 <= len(found) <= MAX_CERTIFICATES
