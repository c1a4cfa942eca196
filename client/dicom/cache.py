"""The encrypted cache as training sees it: records, patients, and arrays in [0, 1].

    cache = Cache.open(path, site_secret)
    for patient_key, records in cache.patients().items():
        image = cache.read(records[0].record_id)        # float32; shape: RecordInfo.shape

A study that was approved sees a frozen view (``Cache.frozen``): its patients, strata, splits and labels stay as they
were, whatever is ingested later. A patient who opts out stays in that view without scans: a null record, so that the
declared counts and the sampling stay what the privacy proof assumes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from client.dicom.cache_folder import CacheFolder, open_folder
from client.dicom.errors import CacheInvalidError
from client.dicom.intensity import FULL_SCALE
from client.dicom.label_table import LabelTable
from client.dicom.person_decisions import load_rules
from client.dicom.persons import find_persons
from client.dicom.record import RecordInfo
from client.dicom.segments import blob_name, map_shard, read_index
from client.dicom.settings import IngestSettings
from client.dicom.splits import resolved
from client.dicom.studies import StudyManifest, load_manifest, make_manifest, save_manifest
from client.dicom.vault import OVERHEAD_BYTES
from client.dicom.withdrawals import load_withdrawn


class Cache:
    """Records of one cache folder, opened for reading."""

    def __init__(
        self,
        folder: CacheFolder,
        records: Sequence[RecordInfo],
        stored: Sequence[RecordInfo],
        *,
        doubts: Mapping[str, int] = MappingProxyType({}),
        manifest: StudyManifest | None = None,
    ) -> None:
        """``stored``: the same records as files gave them; ``doubts``: about persons (``persons.count_doubts``)."""
        self._folder, self._stored, self.doubts = folder, stored, doubts
        self._records = tuple(sorted(records, key=lambda record: record.record_id))
        self._by_id = {record.record_id: record for record in self._records}
        self._manifest = manifest
        self._shards: dict[int, memoryview] = {}

    @classmethod
    def open(cls, path: Path, secret: bytes) -> Self:
        """Open a cache with the site secret.

        Raises: CacheInvalidError.
        """
        folder = open_folder(path, secret)
        withdrawn = load_withdrawn(folder.path, folder.vault)
        stored = read_index(folder.segments, folder.vault, records_only=True).records.values()
        persons = find_persons(stored, load_rules(folder.path, folder.vault), withdrawn)
        present = [r for r in stored if persons.person_of[r.patient_key] not in persons.withdrawn]
        records = resolved(present, LabelTable.load(folder.path, folder.vault), persons)
        return cls(folder, records, present, doubts=persons.doubts)

    @property
    def settings(self) -> IngestSettings:
        """Task and image format of this cache."""
        return self._folder.settings

    @property
    def records(self) -> Sequence[RecordInfo]:
        """All records, in the order of their identifiers (the same after every ingest of the same files)."""
        return self._records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, record_id: str) -> RecordInfo:
        return self._by_id[record_id]

    def patients(self) -> Mapping[str, list[RecordInfo]]:
        """Return the records of each patient; in a frozen view a patient who opted out has an empty list."""
        grouped: dict[str, list[RecordInfo]] = {key: [] for key in (self._manifest.patients if self._manifest else ())}
        for record in self._records:
            grouped.setdefault(record.patient_key, []).append(record)
        return MappingProxyType(dict(sorted(grouped.items())))

    def read(self, record_id: str) -> npt.NDArray[np.float32]:
        """Decrypt one record: float32 in [0, 1], in the record's shape.

        Raises: KeyError (no such record), CacheInvalidError (changed or cut).
        """
        return np.divide(self.read_levels(record_id), np.float32(FULL_SCALE), dtype=np.float32)

    def read_values(self, record_id: str) -> npt.NDArray[np.float32]:
        """Decrypt one record in the units of its source (HU for CT), within its window."""
        record = self._by_id[record_id]
        span = record.intensity_high - record.intensity_low
        return self.read(record_id) * np.float32(span) + np.float32(record.intensity_low)

    def read_levels(self, record_id: str) -> npt.NDArray[np.uint16]:
        """Decrypt one record as stored: level 0 is ``intensity_low``, level 65535 ``intensity_high``."""
        record = self._by_id[record_id]
        return self._read(record, "levels", record.offset, record.length, np.empty(record.shape, "<u2"))

    def read_label_map(self, record_id: str) -> npt.NDArray[np.uint8]:
        """Decrypt an expert's segmentation: class numbers (0 = background), one a pixel whatever its colours.

        Raises: KeyError when there is none, CacheInvalidError.
        """
        record = self._by_id[record_id]
        if not record.has_label_map:
            raise KeyError(record_id)
        drawn = np.empty(self.settings.size_px, np.uint8)
        return self._read(record, "label map", record.offset + record.length, record.label_length, drawn)

    def freeze(self, study_digest: str, *, manifest: StudyManifest | None = None) -> "Cache":
        """Fix patients, strata, splits and labels for an approved study; a study that is frozen already stays as it is.

        ``study_digest``: 64 hexadecimal digits, the digest of the study plan. ``manifest``: how they were fixed when
        the study began, where this cache was made again since: it takes the place of any other.
        """
        present = load_manifest(self._folder, study_digest)
        if present is None or (manifest is not None and manifest != present):
            save_manifest(self._folder, study_digest, manifest or make_manifest(self._records))
        return self.frozen(study_digest)

    def manifest(self, study_digest: str) -> StudyManifest | None:
        """Return how a study was frozen in this cache, None where it was not. Raises: CacheInvalidError."""
        return load_manifest(self._folder, study_digest)

    def present(self) -> StudyManifest:
        """Return what freezing a study now would fix."""
        return make_manifest(self._records)

    def frozen(self, study_digest: str) -> "Cache":
        """Return the view of a study that was frozen before.

        Raises: CacheInvalidError when it was not.
        """
        manifest = load_manifest(self._folder, study_digest)
        if manifest is None:
            raise CacheInvalidError("this study was never frozen here; approve its plan first")
        return Cache(self._folder, manifest.applied(self._stored), self._stored, manifest=manifest)

    def _read(
        self, record: RecordInfo, kind: str, offset: int, length: int, array: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        if record.segment not in self._shards:
            self._shards[record.segment] = map_shard(self._folder.segments, record.segment)
        sealed = self._shards[record.segment][offset : offset + length]
        if length != array.nbytes + OVERHEAD_BYTES:
            raise CacheInvalidError("a record of the cache has another size than its index says; ingest again")
        target = array.reshape(-1).view(np.uint8).data
        self._folder.vault.open_into(kind, blob_name(record.segment, record.record_id), sealed, target)
        return array
