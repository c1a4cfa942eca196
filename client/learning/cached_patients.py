"""A study's patients, read from the encrypted cache when they are sampled.

Labelled patients that the split holds out are only scored; everybody else trains. An unlabelled patient has nothing to
be scored by, so the split does not matter for them. The view is the frozen one: strata never change within a study.
"""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from client.dicom.cache import Cache
from client.dicom.caches import cache_of
from client.dicom.catalogue import Patient
from client.dicom.errors import CacheInvalidError
from client.dicom.intensity import FULL_SCALE
from client.dicom.record import RecordInfo, Split, Stratum
from client.dicom.settings import require_made_for
from client.features.preparation import preparation_of
from client.features.store import FeatureStore
from client.installation.folder import SiteFolder
from client.learning.patients import UNKNOWN, PatientScans
from client.learning.whole_scan import WholeScan
from common.plan.plan import StudyPlan
from common.plan.task import TaskKind
from common.trust.identity import read_secret_file


class CachedPatients:
    """Training patients of one study (``client.learning.patients.Patients``), and the held-out ones (``held_out``).

    ``cache``: the study's frozen view. ``features``: of its scans, where the plan's network takes those.
    Raises: CacheInvalidError when the cache was made for other images than the plan's.
    """

    def __init__(self, cache: Cache, plan: StudyPlan, features: FeatureStore | None = None) -> None:
        require_made_for(cache.settings, plan)
        if (features is None) != (plan.network.encoder is None):
            raise ValueError("features belong to a plan with an encoder, and to no other")
        self._cache, self._plan, self._features = cache, plan, features
        self._records = cache.patients()
        self._held_out: list[str] = []
        self._training: dict[Stratum, list[str]] = {stratum: [] for stratum in Stratum}
        for patient in cache.people():
            if self._is_held_out(patient):
                self._held_out.append(patient.key)
            elif patient.records:
                self._training[patient.stratum].append(patient.key)

    @classmethod
    def of_site(cls, folder: SiteFolder, plan: StudyPlan) -> Self:
        """Open the plan's cache of a site, and the features where the plan's network takes those.

        Raises: CacheInvalidError, also for a study that was never approved here; KeyExposedError.
        """
        secret, preparation = read_secret_file(folder.secret), preparation_of(plan)
        cache = Cache.open(cache_of(folder, plan), secret).frozen(plan.digest())
        return cls(cache, plan, FeatureStore(folder.features, secret, preparation) if preparation else None)

    def keys(self, stratum: Stratum) -> Sequence[str]:
        """Return the training patients of a stratum, in the cache's order.

        A patient who opted out has no scans any more and is a null record: sampled or not, it contributes nothing.
        """
        return self._training[stratum]

    def held_out(self) -> Sequence[str]:
        """Return the patients that are only scored."""
        return self._held_out

    def read(self, patient_key: str) -> "CachedScans":
        """Return one patient's scans; each is decrypted when it is asked for."""
        return CachedScans(self._cache, self._plan, self._records[patient_key], self._features)

    def _is_held_out(self, patient: Patient) -> bool:
        labelled = patient.records > 0 and patient.stratum is Stratum.LABELLED
        return self._plan.evaluation.held_out and labelled and patient.split is Split.VALIDATION


class CachedScans:
    """One patient's scans in the cache (``client.learning.patients.Scans``): in memory are those that are asked for.

    A scan that cannot be decrypted, or of which the encoder made no numbers, is left out.
    """

    def __init__(
        self, cache: Cache, plan: StudyPlan, records: Sequence[RecordInfo], features: FeatureStore | None = None
    ) -> None:
        self._cache, self._plan, self._records, self._features = cache, plan, records, features

    def __len__(self) -> int:
        return len(self._records)

    @property
    def images(self) -> Tensor:
        """All images, or features of them, read anew; shapes as in ``PatientScans``."""
        return self.whole().images

    @property
    def labels(self) -> Tensor:
        """All labels, read anew; shapes as in ``PatientScans``."""
        return self.whole().labels

    @property
    def labelled(self) -> Tensor:
        """Which scans carry any label, read anew: (scans,) bool."""
        return self.whole().labelled

    def whole(self) -> PatientScans:
        """Return all scans in memory."""
        return self._read(self._records)

    def chosen(self, indices: Tensor) -> PatientScans:
        """Return the scans at ``indices`` (n,) int64, and read no other."""
        return self._read([self._records[index] for index in indices.tolist()])

    def blocks(self, most: int) -> Iterator[PatientScans]:
        """Yield all scans, at most ``most`` at a time."""
        for start in range(0, len(self._records), most):
            yield self._read(self._records[start : start + most])

    def as_it_lies(self, index: int) -> WholeScan | None:
        """Return one scan, still as levels, and its class numbers, for whoever cuts parts of it."""
        record = self._records[index]
        try:
            levels = self._cache.read_levels(record.record_id).reshape(self._plan.image.input_shape)
            labels = self._cache.read_label_map(record.record_id) if record.has_label_map else None
        except CacheInvalidError:
            return None
        return WholeScan(levels, labels, full_scale=FULL_SCALE)

    def _read(self, records: Sequence[RecordInfo]) -> PatientScans:
        scans = [scan for scan in map(self._read_scan, records) if scan is not None]
        if not scans:
            nothing = torch.zeros(0, *self._plan.scan_shape), torch.zeros(0, dtype=torch.int64)
            return PatientScans(*nothing, are_features=self._features is not None)
        images, labels = zip(*scans, strict=True)
        return PatientScans(torch.stack(images), torch.stack(labels), are_features=self._features is not None)

    def _read_scan(self, record: RecordInfo) -> tuple[Tensor, Tensor] | None:
        try:
            image = self._image(record)
            return None if image is None else (image, self._label(record))
        except CacheInvalidError:
            return None

    def _image(self, record: RecordInfo) -> Tensor | None:
        if self._features is None:
            return torch.from_numpy(self._cache.read(record.record_id)).view(self._plan.image.input_shape)
        rows = self._features.read(record)
        return None if rows is None else torch.from_numpy(rows)

    def _label(self, record: RecordInfo) -> Tensor:
        kind = self._plan.task.kind
        if kind is TaskKind.SEGMENTATION:
            if record.has_label_map:
                return torch.from_numpy(self._cache.read_label_map(record.record_id).astype(np.int64))
            return torch.full(self._plan.image.size_px, UNKNOWN, dtype=torch.int64)
        if kind is TaskKind.MULTI_LABEL:
            unknown = (UNKNOWN,) * len(self._plan.task.classes)
            return torch.tensor(unknown if record.label is None else record.label, dtype=torch.int64)
        return torch.tensor(UNKNOWN if record.label is None else record.label, dtype=torch.int64)
