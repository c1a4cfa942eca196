"""What an approved study may see: patients, strata, splits and labels as they were on the day of approval.

Privacy is proved for a fixed set of patients in fixed strata (privacy.md, "Frozen at approval"): a scan that arrives
later waits for the next study, a label that arrives later does not move its patient.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from client.dicom.cache_folder import CacheFolder
from client.dicom.errors import CacheInvalidError
from client.dicom.record import Label, RecordInfo, Split, Stratum
from client.processes.packing import packed, unpacked
from common.files import sync_folder, write_new

DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StudyManifest:
    """``patients``: key -> (stratum, split); ``records``: identifier -> (label, content digest)."""

    patients: dict[str, tuple[str, str]]
    records: dict[str, tuple[Label | None, bytes]]

    def applied(self, present: Iterable[RecordInfo]) -> list[RecordInfo]:
        """Return the study's records that are still here with the content they had, as they were labelled then."""
        found = []
        for record in present:
            label, content_digest = self.records.get(record.record_id, (None, b""))
            if content_digest != record.content_digest or record.patient_key not in self.patients:
                continue
            stratum, split = self.patients[record.patient_key]
            found.append(replace(record, label=label, stratum=Stratum(stratum), split=Split(split)))
        return found


def make_manifest(records: Iterable[RecordInfo]) -> StudyManifest:
    """Describe what is here now."""
    listed = list(records)
    return StudyManifest(
        {record.patient_key: (record.stratum.value, record.split.value) for record in listed},
        {record.record_id: (record.label, record.content_digest) for record in listed},
    )


def save_manifest(folder: CacheFolder, study_digest: str, manifest: StudyManifest) -> None:
    """Write a manifest once; it is never replaced."""
    content = packed({"patients": manifest.patients, "records": manifest.records})
    write_new(_path(folder, study_digest), folder.vault.seal("study", study_digest, content), 0o600)
    sync_folder(folder.studies)


def load_manifest(folder: CacheFolder, study_digest: str) -> StudyManifest | None:
    """Read the manifest of a study, or None when it was never frozen.

    Raises: CacheInvalidError.
    """
    path = _path(folder, study_digest)
    if not path.exists():
        return None
    content = unpacked(folder.vault.open("study", study_digest, path.read_bytes()))
    patients = {key: (stratum, split) for key, (stratum, split) in content["patients"].items()}
    records = {key: (tuple(v) if isinstance(v, list) else v, d) for key, (v, d) in content["records"].items()}
    return StudyManifest(patients, records)


def _path(folder: CacheFolder, study_digest: str) -> Path:
    if DIGEST.fullmatch(study_digest) is None:
        raise CacheInvalidError("a study is named by the 64 hexadecimal digits of its plan's digest")
    return folder.studies / f"{study_digest}.sealed"
