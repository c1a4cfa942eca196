"""What a site holds, as counts that may be shown: small cells suppressed, nobody countable by subtraction.

A cell below ``SMALL_CELL`` is shown as None ("<10"): a rare combination can name a person. If a group has exactly one
such cell, its next larger one is suppressed too, because the group's total would give the first away.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from client.dicom.cache import Cache
from client.dicom.cache_folder import open_folder
from client.dicom.index import Index
from client.dicom.record import RecordInfo, Split, Stratum
from client.dicom.segments import read_index
from client.dicom.settings import FileKind
from common.plan.task import TaskKind

SMALL_CELL = 10
Cells = dict[str, int | None]


def take_census(path: Path, secret: bytes) -> dict[str, Any]:
    """Count patients, images and quarantined files of a cache; every count below ``SMALL_CELL`` is None.

    Raises: CacheInvalidError.
    """
    cache = Cache.open(path, secret)
    folder = open_folder(path, secret)
    records = cache.records
    people: dict[str, RecordInfo] = {record.patient_key: record for record in records}
    return {
        "patients": suppressed({"all": len(people)})["all"],
        "images": suppressed({"all": len(records)})["all"],
        "patients_by_stratum": suppressed(_count((p.stratum.value for p in people.values()), Stratum)),
        "patients_by_split": suppressed(_count((p.split.value for p in people.values()), Split)),
        "patients_by_class": suppressed(_classes(cache)),
        "images_by_modality": suppressed(Counter(record.modality for record in records)),
        "images_by_maker": suppressed(Counter(record.maker for record in records)),
        "persons": suppressed(cache.doubts),
        "quarantined_files": suppressed(quarantine(read_index(folder.segments, folder.vault))),
    }


def suppressed(counts: Mapping[str, int]) -> Cells:
    """Return the counts of one group with small cells as None (0 stays 0), so that no sum gives one of them away."""
    cells: Cells = dict(sorted(counts.items()))
    small = [name for name, count in counts.items() if 0 < count < SMALL_CELL]
    larger = sorted((count, name) for name, count in counts.items() if count >= SMALL_CELL)
    if len(small) == 1 and larger:
        small.append(larger[0][1])
    return cells | dict.fromkeys(small)


def _count(values: Iterable[str], known: type[Stratum] | type[Split]) -> dict[str, int]:
    return {str(name): 0 for name in known} | dict(Counter(values))


def _classes(cache: Cache) -> dict[str, int]:
    """Count patients by class: a patient counts for every class that any image of theirs has."""
    classes, kind = cache.settings.classes, cache.settings.kind
    if kind is TaskKind.SEGMENTATION:
        return {
            "with an expert's segmentation": sum(any(r.has_label_map for r in rs) for rs in cache.patients().values())
        }
    counts = dict.fromkeys(classes, 0)
    for records in cache.patients().values():
        for number in {number for record in records for number in _positive(record)}:
            counts[classes[number]] += 1
    return counts


def _positive(record: RecordInfo) -> list[int]:
    if isinstance(record.label, tuple):
        return [number for number, present in enumerate(record.label) if present]
    return [] if record.label is None else [record.label]


def quarantine(index: Index) -> Counter[str]:
    """Count the files that were not taken, by code."""
    codes: Counter[str] = Counter()
    for file in index.files.values():
        stack = index.stack_of(file) if file.kind == FileKind.IMAGE else None
        left_out = dict(stack.left_out).get(file.file_key, "") if stack and stack.left_out else ""
        code = file.code or left_out or (stack.code if stack else "")
        if code:
            codes[code] += 1
    return codes
