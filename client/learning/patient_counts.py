"""How many patients a study may see at this site: the agent's own count, from the manifest frozen at approval.

It bounds what a sum of theirs can be (``client.learning.mechanism``). The count stays what it is when a patient's
record becomes empty, so nothing that follows from it tells anything of a record; it stays in the building.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from client.dicom.cache_folder import open_folder
from client.dicom.caches import cache_of
from client.dicom.errors import CacheInvalidError
from client.dicom.record import Split, Stratum
from client.dicom.studies import load_manifest
from client.installation.folder import SiteFolder
from common.plan.plan import StudyPlan
from common.trust.identity import read_secret_file


@dataclass(frozen=True, kw_only=True)
class PatientCounts:
    """Patients who train, by stratum, and patients who are only scored."""

    labelled: int = 0
    unlabelled: int = 0
    held_out: int = 0

    @classmethod
    def of(cls, patients: Iterable[tuple[str, str]], *, holds_out: bool) -> Self:
        """Count (stratum, split) of each patient. ``holds_out``: labelled patients of the split are scored only."""
        found = {"labelled": 0, "unlabelled": 0, "held_out": 0}
        for stratum, split in patients:
            is_labelled = stratum == Stratum.LABELLED.value
            scored = holds_out and is_labelled and split == Split.VALIDATION.value
            found["held_out" if scored else "labelled" if is_labelled else "unlabelled"] += 1
        return cls(**found)


def frozen_counts(folder: SiteFolder, plan: StudyPlan) -> PatientCounts:
    """Return the counts of an approved study at this site. Raises: CacheInvalidError, KeyExposedError."""
    cache = open_folder(cache_of(folder, plan), read_secret_file(folder.secret))
    manifest = load_manifest(cache, plan.digest())
    if manifest is None:
        raise CacheInvalidError("this study was never frozen here; approve its plan first")
    return PatientCounts.of(manifest.patients.values(), holds_out=plan.evaluation.held_out)
