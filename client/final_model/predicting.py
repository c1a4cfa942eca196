"""What the model says about new scans: one row for each study, and one for each file that could not be used.

The scans are read as in training, by fenced workers, into a cache that exists only while this runs and whose secret
exists only in memory: what a crash leaves of it nobody can read. Files are named by number only, in the order in which
the folder lists them (names in order of their bytes, folder by folder), from 1.
"""

import csv
import io
import math
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from client.dicom.cache import Cache
from client.dicom.cache_folder import open_folder
from client.dicom.index import FileEntry, Index
from client.dicom.ingest import ingest
from client.dicom.intensity import FULL_SCALE
from client.dicom.opt_outs import OptOuts
from client.dicom.record import RecordInfo
from client.dicom.reject import RejectCode
from client.dicom.report import Progress
from client.dicom.segments import read_index
from client.dicom.settings import FileKind, IngestSettings, settings_for
from client.dicom.store import Store
from client.dicom.walk import FoundFile, walk
from client.final_model.scoring import SCANS_AT_ONCE, predicted
from client.learning.sliding_window import answered_label_map
from client.learning.whole_scan import WholeScan
from common.errors import FileUnreadableError
from common.plan.plan import StudyPlan
from common.plan.task import TaskKind
from common.trust.identity import SECRET_BYTES

RESEARCH_ONLY: Final = "Research use only, not a medical device: do not base a diagnosis or treatment on these figures."
CUBIC_MM_PER_ML: Final = 1000.0


@dataclass(frozen=True)
class StudyRow:
    """A study: its files by number, how many images they gave, the answer, and a figure for each class.

    ``figures``: probability of each class; segmentation: volume in ml of each class but the background, or its pixels
    where the images have no spacing.
    """

    files: tuple[int, ...]
    images: int
    answer: str
    figures: tuple[float, ...]


@dataclass
class Predictions:
    """``rows``: studies in the order of their first file. ``refused``: number of a file -> why it was not used."""

    plan: StudyPlan
    rows: list[StudyRow] = field(default_factory=list)
    refused: dict[int, RejectCode] = field(default_factory=dict)

    def to_csv(self) -> str:
        """Return a table; its first line is a comment that says what it must not be used for."""
        out = io.StringIO()
        out.write(f"# {RESEARCH_ONLY}\n")
        writer = csv.writer(out, lineterminator="\n")
        names = _figure_names(self.plan)
        writer.writerow(["study", "first_file", "files", "images", "answer", *names, "refused"])
        for number, row in enumerate(self.rows, start=1):
            figures = [f"{figure:.6g}" for figure in row.figures]
            writer.writerow([number, min(row.files), len(row.files), row.images, row.answer, *figures, ""])
        for file, code in self.refused.items():
            writer.writerow(["", file, 1, 0, "", *[""] * len(names), code.value])
        return out.getvalue()


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
) -> Predictions:
    """Read a folder of scans and return what ``network`` (of ``plan``) says about them; the folder is only read.

    ``temporary``: folder for the short-lived cache. ``reading``, ``predicting``: told about progress (studies done, in
    all). ``features``: from images to what the network takes of them, fewer where of some it takes nothing.
    Raises: FileUnreadableError (no such folder), WorkerStartError, CacheInvalidError.
    """
    if not scans.is_dir():
        raise FileUnreadableError(f"{scans}: not a folder; give the folder that holds the new scans")
    place = Path(tempfile.mkdtemp(dir=temporary, prefix=".predicting-"))
    try:
        secret, settings = secrets.token_bytes(SECRET_BYTES), settings_for(plan.task, plan.image)
        found = list(walk(scans))
        ingest(scans, place / "cache", settings=settings, secret=secret, workers=workers, progress=reading)
        cache = Cache.open(place / "cache", secret)
        origin, refused = _trace(found, place / "cache", secret, settings)
        studies = _studies(cache.records, origin)
        result = Predictions(plan, refused=refused)
        for done, records in enumerate(studies, start=1):
            files = tuple(sorted(set(_files(records, origin))))
            figures = _figures(network, plan, cache, records, device=device or torch.device("cpu"), features=features)
            result.rows.append(StudyRow(files, len(records), _answer(figures, plan), figures))
            if predicting:
                predicting(done, len(studies))
        return result
    finally:
        shutil.rmtree(place, ignore_errors=True)


Origin = dict[str, list[int]]  # record -> numbers of the files it was made from


def _trace(
    found: Sequence[FoundFile], cache: Path, secret: bytes, settings: IngestSettings
) -> tuple[Origin, dict[int, RejectCode]]:
    """Find out which files each record came from, and why the others were refused."""
    folder = open_folder(cache, secret)
    index = read_index(folder.segments, folder.vault)
    names = Store(Index(), None, settings=settings, secret=secret, withdrawn=OptOuts())
    origin: Origin = {}
    refused: dict[int, RejectCode] = {}
    for number, file in enumerate(found, start=1):
        entry = index.files.get(names.file_key(file))
        code, records = (file.code or RejectCode.UNREADABLE, ()) if entry is None else _fate(entry, index)
        for record_id in records:
            origin.setdefault(record_id, []).append(number)
        if code is not None:
            refused[number] = code
    return origin, refused


def _fate(entry: FileEntry, index: Index) -> tuple[RejectCode | None, tuple[str, ...]]:
    """Return why a file was not used, or the records it is part of."""
    if entry.code:
        return RejectCode(entry.code), ()
    if not entry.links:
        return None, entry.record_ids
    if entry.kind != FileKind.IMAGE:
        return None, ()  # a segmentation made by somebody: nothing to predict on, and nothing wrong with it
    stack = index.stack_of(entry)
    if stack is None or stack.code:
        return RejectCode(stack.code) if stack else RejectCode.UNREADABLE, ()
    return None, (stack.record_id,)


def _studies(records: Sequence[RecordInfo], origin: Origin) -> list[list[RecordInfo]]:
    """Group records by study, in the order of each study's first file."""
    grouped: dict[str, list[RecordInfo]] = {}
    for record in records:
        if record.record_id in origin:
            grouped.setdefault(record.study_key, []).append(record)
    return sorted(grouped.values(), key=lambda study: min(_files(study, origin)))


def _files(records: Sequence[RecordInfo], origin: Origin) -> Iterator[int]:
    for record in records:
        yield from origin[record.record_id]


def _images(cache: Cache, plan: StudyPlan, records: Sequence[RecordInfo]) -> Tensor:
    """Return the images of a study: (images, channels, *size) float32 in [0, 1]."""
    shape = plan.image.input_shape
    return torch.stack([torch.from_numpy(cache.read(record.record_id)).view(shape) for record in records])


def _figures(
    network: nn.Module,
    plan: StudyPlan,
    cache: Cache,
    records: Sequence[RecordInfo],
    *,
    device: torch.device,
    features: Callable[[Tensor], Tensor],
) -> tuple[float, ...]:
    """Return a study's figures; of however many images, a few are in memory at a time."""
    kind, classes = plan.task.kind, len(plan.task.classes)
    totals, seen = torch.zeros(classes, dtype=torch.float64), 0
    if plan.image.patch_px:
        network = network.to(device)
        for record in records:  # one at a time: they are large, or they had no patches
            scan = WholeScan(cache.read_levels(record.record_id).reshape(plan.image.input_shape), None, FULL_SCALE)
            found, is_finite = answered_label_map(network, scan, plan.image.patch_px)
            counts = np.bincount(found.reshape(-1), minlength=classes)
            totals += torch.from_numpy(counts) if is_finite else torch.nan
        return tuple(float(count) * _voxel_ml(plan) for count in totals[1:])
    for start in range(0, len(records), SCANS_AT_ONCE):
        images = features(_images(cache, plan, records[start : start + SCANS_AT_ONCE]))
        if len(images) == 0:
            continue
        seen += len(images)
        probabilities = predicted(network, images, kind, device)
        if kind is TaskKind.SEGMENTATION:
            totals += torch.bincount(probabilities.argmax(1).flatten(), minlength=classes)
        else:
            totals += probabilities.double().sum(0)
    if kind is not TaskKind.SEGMENTATION:
        return tuple((totals / seen).tolist())  # of no image a figure that is none
    return tuple(float(count) * _voxel_ml(plan) for count in totals[1:])


def _answer(figures: Sequence[float], plan: StudyPlan) -> str:
    classes, kind = plan.task.classes, plan.task.kind
    if not all(map(math.isfinite, figures)):
        return ""
    if kind is TaskKind.CLASSIFICATION:
        return classes[max(range(len(figures)), key=figures.__getitem__)]
    least = 0.5 if kind is TaskKind.MULTI_LABEL else 0.0
    named = classes if kind is TaskKind.MULTI_LABEL else classes[1:]
    return "|".join(name for name, figure in zip(named, figures, strict=True) if figure > least) or "none"


def _figure_names(plan: StudyPlan) -> list[str]:
    if plan.task.kind is not TaskKind.SEGMENTATION:
        return [f"p_{name}" for name in plan.task.classes]
    unit = "ml" if plan.task.dimensions == 3 else "pixels"
    return [f"{unit}_{name}" for name in plan.task.classes[1:]]


def _voxel_ml(plan: StudyPlan) -> float:
    """Return the volume of a voxel of the study in ml; 1 in two dimensions, where pixels are counted."""
    if plan.task.dimensions == 2:
        return 1.0
    depth, height, width = plan.image.spacing_mm
    return depth * height * width / CUBIC_MM_PER_ML
