"""What an approved study may see: patients, strata, splits and labels as they were on the day of approval.

Privacy is proved for a fixed set of patients in fixed strata (privacy.md, "Frozen at approval"): a scan that arrives
later waits for the next study, a label that arrives later does not move its patient. They are fixed for the study, not
for the cache: from the study's first charge on a copy lies outside of the cache (``KeptManifests``), and whoever makes
the cache again gets the same strata, with patients who are gone as null records.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from client.dicom.cache_folder import CacheFolder
from client.dicom.errors import CacheInvalidError
from client.dicom.pseudonyms import derive
from client.dicom.record import Label, RecordInfo, Split, Stratum
from client.dicom.vault import CACHE_ID_BYTES, Vault
from client.processes.packing import packed, unpacked
from common.files import replace_atomically
from common.trust.canonical import canonical_bytes

DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StudyManifest:
    """``patients``: key -> (stratum, split); ``records``: identifier -> (label, content digest, key of the patient).

    Whose a record is stays as it was as well, even if a later scan shows that two identifiers are one person.
    """

    patients: dict[str, tuple[str, str]]
    records: dict[str, tuple[Label | None, bytes, str]]

    def applied(self, present: Iterable[RecordInfo]) -> list[RecordInfo]:
        """Return the study's records that are still here with the content they had, as they were labelled then.

        ``present``: records as stored (``patient_key`` is that of the file).
        """
        found = []
        for record in present:
            label, content_digest, person = self.records.get(record.record_id, (None, b"", ""))
            person = person or record.patient_key  # of a study frozen before persons were kept beside records
            if content_digest != record.content_digest or person not in self.patients:
                continue
            stratum, split = self.patients[person]
            whose = replace(record, patient_key=person, identity_key=record.patient_key)
            found.append(replace(whose, label=label, stratum=Stratum(stratum), split=Split(split)))
        return found

    def strata_digest(self, secret: bytes) -> bytes:
        """Return 32 bytes that say who is in which stratum and split, to whoever has the site secret and no other.

        HMAC-SHA256 under a subkey: it goes into the privacy ledger, whose head leaves the site.
        """
        key = derive(secret, "fedward strata/1")
        return hmac.digest(key, canonical_bytes({k: list(v) for k, v in self.patients.items()}), hashlib.sha256)


class KeptManifests:
    """Copies of manifests in the site folder, sealed with the site secret, for the day when the cache is lost."""

    def __init__(self, folder: Path, secret: bytes) -> None:
        self._folder, self._vault = folder, Vault(secret, bytes(CACHE_ID_BYTES), b"")

    def load(self, study_digest: str) -> StudyManifest | None:
        """Return the copy of a study, or None where there is none. Raises: CacheInvalidError for another secret."""
        path = _named(self._folder, study_digest)
        if not path.exists():
            return None
        try:
            return _unsealed(self._vault, study_digest, path.read_bytes())
        except CacheInvalidError:
            raise CacheInvalidError(
                f"{path}: damaged, or sealed with another site.secret; restore both from the same backup"
            ) from None

    def keep(self, study_digest: str, manifest: StudyManifest) -> None:
        """Make a durable copy."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        replace_atomically(_named(self._folder, study_digest), _sealed(self._vault, study_digest, manifest), 0o600)


def make_manifest(records: Iterable[RecordInfo]) -> StudyManifest:
    """Describe what is here now."""
    listed = list(records)
    return StudyManifest(
        {record.patient_key: (record.stratum.value, record.split.value) for record in listed},
        {record.record_id: (record.label, record.content_digest, record.patient_key) for record in listed},
    )


def save_manifest(folder: CacheFolder, study_digest: str, manifest: StudyManifest) -> None:
    """Write a manifest, durably; only the one that a study began with may take the place of another."""
    replace_atomically(_named(folder.studies, study_digest), _sealed(folder.vault, study_digest, manifest), 0o600)


def load_manifest(folder: CacheFolder, study_digest: str) -> StudyManifest | None:
    """Read the manifest of a study, or None when it was never frozen.

    Raises: CacheInvalidError.
    """
    path = _named(folder.studies, study_digest)
    return _unsealed(folder.vault, study_digest, path.read_bytes()) if path.exists() else None


def _sealed(vault: Vault, study_digest: str, manifest: StudyManifest) -> bytes:
    return vault.seal("study", study_digest, packed({"patients": manifest.patients, "records": manifest.records}))


def _unsealed(vault: Vault, study_digest: str, sealed: bytes) -> StudyManifest:
    content = unpacked(vault.open("study", study_digest, sealed))
    patients = {key: (stratum, split) for key, (stratum, split) in content["patients"].items()}
    records = {
        key: (tuple(label) if isinstance(label, list) else label, digest, person[0] if person else "")
        for key, (label, digest, *person) in content["records"].items()
    }
    return StudyManifest(patients, records)


def _named(folder: Path, study_digest: str) -> Path:
    if DIGEST.fullmatch(study_digest) is None:
        raise CacheInvalidError("a study is named by the 64 hexadecimal digits of its plan's digest")
    return folder / f"{study_digest}.sealed"
