"""Keyed names: who and what a record is, without saying so.

    key(purpose, parts) = HMAC-SHA256(K_id, purpose || 0x1f || part_1 || 0x1f || ... )[:16], in hexadecimal
    K_id = HKDF-SHA256(site secret, info = "fedward identity/1")

(RFC 2104, RFC 5869.) A plain hash of a PatientID is undone by trying all numbers; without the site secret these are
not. They stay pseudonymous *personal* data: whoever has the secret can test a guess. The purpose keeps a study's name
apart from a patient's with the same text. Keys do not depend on the cache, so a patient has one key in every study of
the site and the privacy ledger can add up what was spent on the same people.
"""

import hashlib
import hmac
import unicodedata

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from client.dicom.person_rules import PersonFrom, PersonRules

SEPARATOR = b"\x1f"
KEY_CHARACTERS = 32
NOBODY_DECIDED = PersonRules()


def derive(secret: bytes, purpose: str, salt: bytes = b"") -> bytes:
    """Return the 32-byte subkey of the site secret for one purpose (HKDF-SHA256)."""
    return HKDF(hashes.SHA256(), 32, salt or None, purpose.encode()).derive(secret)


def secret_check(secret: bytes) -> str:
    """Return 16 hexadecimal digits that tell one site secret from another and say nothing else of it."""
    return derive(secret, "fedward secret check/1")[:8].hex()


class Pseudonyms:
    """Turns identifiers into keyed names; made inside a worker, so identifiers never leave it."""

    def __init__(self, identity_key: bytes, rules: PersonRules = NOBODY_DECIDED, folder: bytes = b"") -> None:
        """``rules``: what staff decided about persons. ``folder``: first folder of the file that is named."""
        self._identity_key = identity_key
        self.rules, self.folder = rules, folder

    def below(self, name: bytes) -> "Pseudonyms":
        """Return the namer of one file, of which ``name`` is the place below the scan folder."""
        if self.rules.person_from is not PersonFrom.FOLDER:
            return self
        folder, separator, _ = name.partition(b"/")
        return Pseudonyms(self._identity_key, self.rules, folder if separator else b"")

    @classmethod
    def of_site(cls, secret: bytes) -> "Pseudonyms":
        """Return the namer of a site, from its site secret."""
        return cls(derive(secret, "fedward identity/1"))

    def key(self, purpose: str, *parts: bytes) -> str:
        """Return the keyed name of ``parts`` for one purpose: ``KEY_CHARACTERS`` hexadecimal digits."""
        message = SEPARATOR.join((purpose.encode(), *(len(p).to_bytes(4, "big") + p for p in parts)))
        return hmac.new(self._identity_key, message, hashlib.sha256).hexdigest()[:KEY_CHARACTERS]

    def patient(self, issuer: str, patient_id: str) -> str:
        """Return the patient key: issuer and PatientID, normalised; different spellings of one person meet here."""
        return self.key("patient", normalised(issuer), normalised(patient_id))

    def stack(self, patient_key: str, group_key: str) -> str:
        """Return the name of a group of files: one series, or one instance, of one patient."""
        return self.key("stack", patient_key.encode(), group_key.encode())

    def person_of_study(self, study_uid: str) -> str:
        """Return the key of a person who is known by one study only."""
        return self.key("person of study", normalised(study_uid))

    def person_of_folder(self, folder: bytes) -> str:
        """Return the key of a person who is known by the folder of the scans only."""
        return self.key("person of folder", folder)

    def issuer(self, issuer: str) -> str:
        """Return the key of who gave an identifier out, "" when nobody says."""
        return self.key("issuer", normalised(issuer)) if normalised(issuer) else ""

    def stacks(self, patient_key: str, patient_id_key: str, group_key: str) -> tuple[str, str]:
        """Return the names of a group of files: with the issuer it names, and by the PatientID alone."""
        return self.stack(patient_key, group_key), self.key("stack of id", patient_id_key.encode(), group_key.encode())

    def label_key(self, key_type: str, value: str) -> str:
        """Return the key under which a row of the label table and a record find each other (PatientID: no issuer)."""
        return self.key(f"label {key_type}", normalised(value))


def normalised(text: str) -> bytes:
    """Return ``text`` in Unicode form NFKC, without outer space, in capitals: what a person would call the same.

    Characters that nobody sees (zero width, direction marks, controls) are left out.
    """
    composed = unicodedata.normalize("NFKC", text)
    if not composed.isprintable():
        composed = "".join(char for char in composed if not _is_invisible(char))
    return composed.strip().upper().encode("utf-8", "surrogatepass")


def _is_invisible(char: str) -> bool:
    # Controls from 0x80 on are kept: in a text of undeclared encoding they are parts of letters.
    return char < " " or char == "\x7f" or unicodedata.category(char) == "Cf"


def likeness(text: str) -> str:
    """Return letters and digits only, without leading zeros: equal for 0012345, 12345 and 12-345.

    Two identifiers that are alike may be one person or two: the doubt is counted, nobody is merged by it.
    """
    plain = "".join(char for char in normalised(text).decode("utf-8", "surrogatepass") if char.isalnum())
    return plain.lstrip("0") or plain[:1]
