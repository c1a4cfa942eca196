"""The encrypted cache as training sees it: records, patients, and arrays in [0, 1].

    cache = Cache.open(path, site_secret)
    for patient_key, records in cache.patients().items():
        image = cache.read(records[0].record_id)        # float32; shape: RecordInfo.shape

A study that was approved sees a frozen view (``Cache.frozen``): its patients, strata, splits and labels stay as they
were, whatever is ingested later. A patient who opts out stays in that view without scans: a null record, so that the
declared counts and the sampling stay what the privacy proof assumes.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from client.dicom.cache_folder import CacheFolder, open_folder
from client.dicom.catalogue import Catalogue, Patient
from client.dicom.catalogue_file import RECORDS, load_catalogue, marks_of, save_catalogue
from client.dicom.catalogue_making import made_from_index
from client.dicom.errors import CacheInvalidError
from client.dicom.intensity import FULL_SCALE
from client.dicom.person_decisions import load_rules
from client.dicom.person_rules import PersonRules
from client.dicom.record import RecordInfo
from client.dicom.record_views import PatientRecords, Records
from client.dicom.segments import blob_name, map_shard
from client.dicom.settings import IngestSettings
from client.dicom.studies import StudyManifest, load_manifest, make_manifest, save_manifest
from client.dicom.vault import OVERHEAD_BYTES

Answer = TypeVar("Answer")

_log = logging.getLogger("fedward.site")


class Cache:
    """Records of one cache folder, opened for reading; ``study``: the digest of a frozen study, "" for all of today."""

    def __init__(self, folder: CacheFolder, study: str = "") -> None:
        self._folder, self._study = folder, study
        marks = marks_of(folder, study)
        self._catalogue = load_catalogue(folder, study, marks) or self._made(marks)
        self._shards: dict[int, memoryview] = {}

    @classmethod
    def open(cls, path: Path, secret: bytes) -> Self:
        """Open a cache with the site secret; records are read when they are asked for (``catalogue``).

        Raises: CacheInvalidError.
        """
        return cls(open_folder(path, secret))

    @property
    def settings(self) -> IngestSettings:
        """Task and image format of this cache."""
        return self._folder.settings

    @property
    def doubts(self) -> Mapping[str, int]:
        """Doubts about persons (``persons.count_doubts``)."""
        return self._catalogue.doubts

    @property
    def rules(self) -> PersonRules:
        """Decisions about persons that this cache was made by."""
        return load_rules(self._folder.path, self._folder.vault)

    @property
    def records(self) -> Sequence[RecordInfo]:
        """All records, in the order of their identifiers (the same after every ingest of the same files)."""
        return Records(self._ask, len(self))

    def __len__(self) -> int:
        return len(self._catalogue)

    def __getitem__(self, record_id: str) -> RecordInfo:
        return self._ask(lambda catalogue: catalogue.record(record_id))

    def patients(self) -> Mapping[str, list[RecordInfo]]:
        """Return the records of each patient; in a frozen view a patient who opted out has an empty list."""
        return PatientRecords(self._ask, self._catalogue.keys())

    def people(self) -> Iterator[Patient]:
        """Yield stratum, split and number of records of each patient, in the order of the keys; reads no record."""
        return self._catalogue.patients()

    def read(self, record_id: str) -> npt.NDArray[np.float32]:
        """Decrypt one record: float32 in [0, 1], in the record's shape.

        Raises: KeyError (no such record), CacheInvalidError (changed or cut).
        """
        return np.divide(self.read_levels(record_id), np.float32(FULL_SCALE), dtype=np.float32)

    def read_values(self, record_id: str) -> npt.NDArray[np.float32]:
        """Decrypt one record in the units of its source (HU for CT), within its window."""
        record = self[record_id]
        span = record.intensity_high - record.intensity_low
        return self.read(record_id) * np.float32(span) + np.float32(record.intensity_low)

    def read_levels(self, record_id: str) -> npt.NDArray[np.uint16]:
        """Decrypt one record as stored: level 0 is ``intensity_low``, level 65535 ``intensity_high``."""
        record = self[record_id]
        return self._read(record, "levels", record.offset, record.length, np.empty(record.shape, "<u2"))

    def read_label_map(self, record_id: str) -> npt.NDArray[np.uint8]:
        """Decrypt an expert's segmentation: class numbers (0 = background), one a pixel whatever its colours.

        Raises: KeyError when there is none, CacheInvalidError.
        """
        record = self[record_id]
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
            save_manifest(self._folder, study_digest, manifest or self.present())
        return self.frozen(study_digest)

    def manifest(self, study_digest: str) -> StudyManifest | None:
        """Return how a study was frozen in this cache, None where it was not. Raises: CacheInvalidError."""
        return load_manifest(self._folder, study_digest)

    def present(self) -> StudyManifest:
        """Return what freezing a study now would fix."""
        return make_manifest(self.records)

    def frozen(self, study_digest: str) -> "Cache":
        """Return the view of a study that was frozen before.

        Raises: CacheInvalidError when it was not.
        """
        return Cache(self._folder, study_digest)

    def _ask(self, question: Callable[[Catalogue], Answer]) -> Answer:
        """Ask the catalogue; one of which a block turns out to be damaged is made anew and asked again."""
        try:
            return question(self._catalogue)
        except CacheInvalidError:
            _log.warning("a catalogue of the cache is damaged; it is made anew")
            if marks_of(self._folder, self._study) != self._catalogue.marks:
                raise CacheInvalidError("the cache changed while it was read; try again") from None
            self._catalogue = self._made(self._catalogue.marks)
            return question(self._catalogue)

    def _made(self, marks: bytes) -> Catalogue:
        """Make the catalogue of this view from all index parts, and keep it where that may be written.

        Raises: CacheInvalidError.
        """
        folder, study = self._folder, self._study
        content = made_from_index(folder, study, marks)
        save_catalogue(folder, study, content)
        return Catalogue(folder.vault, study or RECORDS, memoryview(content))

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


def refresh_catalogues(folder: CacheFolder) -> None:
    """Make the catalogues of the cache and its frozen studies that do not fit any more, for those who may not write.

    Raises: CacheInvalidError for the cache; a study that is damaged says so when it is opened.
    """
    Cache(folder)
    for path in sorted(folder.studies.glob("*.sealed")):
        with suppress(CacheInvalidError):
            Cache(folder, path.stem)
