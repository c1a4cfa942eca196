"""Pseudo-masks of studies that nobody has labelled: a first drawing for a radiologist, written as DICOM SEG.

Images come from the cache of the model's plan, geometry and references from the scans, which must be as they were when
they were ingested. What a person corrects goes back through ``ingest`` like any expert's segmentation.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from client.dicom.cache import Cache
from client.dicom.caches import cache_of
from client.dicom.masks import MaskWriter
from client.dicom.record import RecordInfo, Stratum
from client.dicom.reject import RejectCode
from client.dicom.walk import walk
from client.final_model.origins import Origins, trace
from client.final_model.predicting import answered
from client.final_model.receiving import FinalModel
from client.installation.folder import SiteFolder
from common.errors import FileUnreadableError
from common.trust.identity import read_secret_file


@dataclass
class Annotations:
    """``written``: masks; ``changed``: unlabelled records whose files are not as they were ingested, or not there.

    ``refused``: why no mask could be written, of each record that has none.
    """

    written: int = 0
    changed: int = 0
    refused: list[RejectCode] = field(default_factory=list)


def annotate(
    folder: SiteFolder,
    model: FinalModel,
    scans: Path,
    make: Callable[[Cache, bytes], MaskWriter],
    *,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Annotations:
    """Write a mask for every record of an unlabelled patient. ``scans``: the folder that was ingested; only read.

    Raises: FileUnreadableError, CacheInvalidError (also where no cache was made for the model's plan), KeyExposedError,
    WorkerStartError.
    """
    if not scans.is_dir():
        raise FileUnreadableError(f"{scans}: not a folder; give the folder of scans that was ingested")
    secret = read_secret_file(folder.secret)
    place = cache_of(folder, model.plan)
    cache, origins = Cache.open(place, secret), trace(list(walk(scans)), place, secret)
    wanted = [record for record in cache.records if record.stratum is Stratum.UNLABELLED]
    present = sorted((r for r in wanted if _is_unchanged(r, origins)), key=lambda r: origins.files[r.record_id])
    result = Annotations(changed=len(wanted) - len(present))
    network = model.network.to(device)
    with make(cache, secret) as writer:
        for done, record in enumerate(present, start=1):
            label_map = answered(network, cache, record, model.plan, device)
            found = writer.write(f"annotation-{done:05d}", origins.names(record.record_id), label_map)
            result.written += not found.code
            result.refused += [found.code] if found.code else []
            if progress:
                progress(done, len(present))
    return result


def _is_unchanged(record: RecordInfo, origins: Origins) -> bool:
    numbers = origins.files.get(record.record_id, ())
    return bool(numbers) and origins.new.isdisjoint(numbers)
