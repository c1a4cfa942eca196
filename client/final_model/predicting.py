"""What the model says about new scans: one row for each study, and one for each file that could not be used.

A segmentation has a row for each series (2-D: picture) instead, and a mask of it where somebody writes them.
The scans are read as in training, by fenced workers, into a cache that exists only while this runs and whose secret
exists only in memory: what a crash leaves of it nobody can read. Files are named by number only (``origins``).
"""

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from client.dicom.cache import Cache
from client.dicom.ingest import ingest
from client.dicom.intensity import FULL_SCALE
from client.dicom.masks import MaskWriter
from client.dicom.record import RecordInfo
from client.dicom.report import Progress
from client.dicom.resize import Labels
from client.dicom.settings import IngestSettings, settings_for
from client.dicom.walk import walk
from client.final_model.origins import Origins, trace
from client.final_model.predictions import Predictions, Row, answer_of
from client.final_model.scoring import SCANS_AT_ONCE, predicted
from client.learning.sliding_window import answered_label_map
from client.learning.whole_scan import WholeScan
from common.errors import FileUnreadableError
from common.plan.plan import StudyPlan
from common.plan.task import TaskKind
from common.trust.identity import SECRET_BYTES

CUBIC_MM_PER_ML: Final = 1000.0
MakeMasks = Callable[[IngestSettings, bytes], MaskWriter]


def _as_they_are(images: Tensor) -> Tensor:
    return images


def predict(
    network: nn.Module,
    plan: StudyPlan,
    scans: Path,
    *,
    workers: int = 1,
    device: torch.device | None = None,
    temporary: Path | None = None,
    reading: Callable[[Progress], None] | None = None,
    predicting: Callable[[int, int], None] | None = None,
    features: Callable[[Tensor], Tensor] = _as_they_are,
    masks: MakeMasks | None = None,
) -> Predictions:
    """Read a folder of scans and return what ``network`` (of ``plan``) says about them; the folder is only read.

    ``temporary``: folder for the short-lived cache. ``reading``, ``predicting``: told about progress (studies done, in
    all). ``features``: from images to what the network takes of them, fewer where of some it takes nothing. ``masks``:
    makes what writes a segmentation's masks, from the settings and secret that the scans are read with.
    Raises: FileUnreadableError (no such folder), WorkerStartError, CacheInvalidError.
    """
    if not scans.is_dir():
        raise FileUnreadableError(f"{scans}: not a folder; give the folder that holds the new scans")
    place = Path(tempfile.mkdtemp(dir=temporary, prefix=".predicting-"))
    try:
        secret, settings = secrets.token_bytes(SECRET_BYTES), settings_for(plan.task, plan.image)
        found = list(walk(scans))
        ingest(scans, place / "cache", settings=settings, secret=secret, workers=workers, progress=reading)
        cache, origins = Cache.open(place / "cache", secret), trace(found, place / "cache", secret)
        studies = _studies(cache.records, origins)
        result = Predictions(plan, refused=origins.refused, studies=len(studies))
        model = _Model(network, plan, cache, device or torch.device("cpu"), features)
        with masks(settings, secret) if masks else nullcontext() as writer:
            for done, records in enumerate(studies, start=1):
                if plan.task.kind is TaskKind.SEGMENTATION:
                    result.rows += _series_rows(model, records, origins, writer, study=done, after=len(result.rows))
                else:
                    figures = model.figures(records)
                    row = Row(_files(records, origins), len(records), answer_of(figures, plan), figures, study=done)
                    result.rows.append(row)
                if predicting:
                    predicting(done, len(studies))
        return result
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _series_rows(
    model: "_Model",
    records: Sequence[RecordInfo],
    origins: Origins,
    writer: MaskWriter | None,
    *,
    study: int,
    after: int,
) -> Iterator[Row]:
    """Yield a row for each series of a study, the first of them number ``after`` + 1; masks are written on the way."""
    for number, record in enumerate(sorted(records, key=lambda one: origins.files[one.record_id]), start=after + 1):
        label_map = model.label_map(record)
        files, images = origins.files[record.record_id], record.slices
        figures, name, code = model.sizes(label_map), "", ""
        if writer is not None:
            kind = "series" if model.plan.task.dimensions == 3 else "picture"
            written = writer.write(f"{kind}-{number:04d}", origins.names(record.record_id), label_map)
            figures, name = written.sizes or figures, written.name
            code = written.code.value if written.code else ""
        yield Row(files, images, answer_of(figures, model.plan), figures, study, name, code)


def _studies(records: Sequence[RecordInfo], origins: Origins) -> list[list[RecordInfo]]:
    """Group records by study, in the order of each study's first file."""
    grouped: dict[str, list[RecordInfo]] = {}
    for record in records:
        if record.record_id in origins.files:
            grouped.setdefault(record.study_key, []).append(record)
    return sorted(grouped.values(), key=lambda study: _files(study, origins)[0])


def _files(records: Sequence[RecordInfo], origins: Origins) -> tuple[int, ...]:
    return tuple(sorted({number for record in records for number in origins.files[record.record_id]}))


@dataclass(frozen=True, eq=False)
class _Model:
    """A network with the images it is asked about."""

    network: nn.Module
    plan: StudyPlan
    cache: Cache
    device: torch.device
    features: Callable[[Tensor], Tensor]

    def figures(self, records: Sequence[RecordInfo]) -> tuple[float, ...]:
        """Return a study's probability of each class; of however many images, a few are in memory at a time."""
        totals, seen = torch.zeros(len(self.plan.task.classes), dtype=torch.float64), 0
        for start in range(0, len(records), SCANS_AT_ONCE):
            images = self.features(self._images(records[start : start + SCANS_AT_ONCE]))
            if len(images) == 0:
                continue
            seen += len(images)
            totals += predicted(self.network, images, self.plan.task.kind, self.device).double().sum(0)
        return tuple((totals / seen).tolist())  # of no image a figure that is none

    def label_map(self, record: RecordInfo) -> Labels:
        """Return the likeliest class of each voxel of a record, on the study's grid: (*size) uint8."""
        return answered(self.network, self.cache, record, self.plan, self.device)

    def sizes(self, label_map: Labels) -> tuple[float, ...]:
        """Return the ml of each class but the background on the study's grid; its pixels in 2-D."""
        counts = np.bincount(label_map.reshape(-1), minlength=len(self.plan.task.classes))
        return tuple(float(count) * _voxel_ml(self.plan) for count in counts[1:])

    def _images(self, records: Sequence[RecordInfo]) -> Tensor:
        shape = self.plan.image.input_shape
        return torch.stack([torch.from_numpy(self.cache.read(record.record_id)).view(shape) for record in records])


def answered(network: nn.Module, cache: Cache, record: RecordInfo, plan: StudyPlan, device: torch.device) -> Labels:
    """Return the likeliest class of each voxel of a record (*size) uint8: by windows where the plan has patches."""
    if plan.image.patch_px:
        levels = cache.read_levels(record.record_id).reshape(plan.image.input_shape)
        by_windows, _ = answered_label_map(network.to(device), WholeScan(levels, None, FULL_SCALE), plan.image.patch_px)
        return np.asarray(by_windows, np.uint8)
    image = torch.from_numpy(cache.read(record.record_id)).view(1, *plan.image.input_shape)
    found: Labels = predicted(network, image, plan.task.kind, device)[0].argmax(0).numpy().astype(np.uint8)
    return found


def _voxel_ml(plan: StudyPlan) -> float:
    """Return the volume of a voxel of the study in ml; 1 in two dimensions, where pixels are counted."""
    if plan.task.dimensions == 2:
        return 1.0
    depth, height, width = plan.image.spacing_mm
    return depth * height * width / CUBIC_MM_PER_ML
