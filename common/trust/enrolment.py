"""An enrolment: what a hospital sends to the coordinator to be admitted. All of it is public.

    site -> coordinator:  name, site key, node key, signature of the site key over all of it

The signature proves that the sender holds the site key, and binds the SuperNode's key to it. It proves nothing about
who the sender is: that is what the fingerprint is for, which coordinator and hospital compare over the phone.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from common.files import read_bounded
from common.trust.canonical import encode_base64
from common.trust.errors import EnrolmentInvalidError
from common.trust.identity import fingerprint, public_bytes
from common.trust.roster import NAME
from common.trust.signed_document import SignedDocumentError, decoded_key, read_signed, signed_document

FORMAT: Final = "fedward-enrolment/1"
MAX_ENROLMENT_BYTES: Final = 4096
FIELDS: Final = {"format", "site", "site_key", "node_key"}
NODE_KEY: Final = re.compile(r"ecdsa-sha2-nistp384 [A-Za-z0-9+/]{1,300}={0,2}")


@dataclass(frozen=True, eq=False)
class Enrolment:
    """A hospital's name and public keys.

    ``site`` matches ``common.trust.roster.NAME``; ``site_key`` is its identity (Ed25519); ``node_key`` is one OpenSSH
    line without a comment (ECDSA P-384), with which its SuperNode shows itself. Raises: EnrolmentInvalidError.
    """

    site: str
    site_key: Ed25519PublicKey
    node_key: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.site):
            raise EnrolmentInvalidError("enrolment: `site` must be 2 to 63 lower-case letters, digits and hyphens")
        check_node_key(self.node_key)

    def document(self) -> dict[str, Any]:
        """Return the enrolment as plain values, without the signature."""
        return {
            "format": FORMAT,
            "site": self.site,
            "site_key": encode_base64(public_bytes(self.site_key)),
            "node_key": self.node_key,
        }

    def fingerprint(self) -> str:
        """Return the fingerprint of the site key, to be compared over the phone."""
        return fingerprint(self.site_key)


def check_node_key(line: str) -> None:
    """Check that ``line`` is one ECDSA P-384 public key in OpenSSH form and nothing else.

    Only the spelling that OpenSSH writes is taken, so that one key has one text.
    Raises: EnrolmentInvalidError.
    """
    try:
        key = load_ssh_public_key(line.encode()) if NODE_KEY.fullmatch(line) else None
    except (ValueError, UnsupportedAlgorithm, NotImplementedError):  # the last: a compressed point
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        raise EnrolmentInvalidError("enrolment: `node_key` must be one OpenSSH line of an ECDSA P-384 public key")
    if key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() != line:
        raise EnrolmentInvalidError("enrolment: `node_key` is not spelled as OpenSSH spells it")


def signed_enrolment(enrolment: Enrolment, site_key: Ed25519PrivateKey) -> bytes:
    """Return the enrolment file: canonical JSON (RFC 8785) with the site key's signature (RFC 8032) over all of it."""
    return signed_document(enrolment.document(), site_key)


def read_enrolment(path: Path) -> Enrolment:
    """Read an enrolment file and check its form and the proof that the sender holds the site key.

    The caller must still compare the fingerprint with the hospital.
    Raises: EnrolmentInvalidError, FileUnreadableError, FileTooLargeError.
    """
    content = read_bounded(path, MAX_ENROLMENT_BYTES)
    try:
        document = read_signed(content, form=FORMAT, fields=FIELDS, signer="site_key")
        site_key = decoded_key(document["site_key"])
    except SignedDocumentError as error:
        raise EnrolmentInvalidError(f"{path}: {error}; ask the site for its enrolment file again") from None
    if not isinstance(document["site"], str) or not isinstance(document["node_key"], str):
        raise EnrolmentInvalidError(f"{path}: `site` and `node_key` must be text")
    return Enrolment(document["site"], site_key, document["node_key"])
