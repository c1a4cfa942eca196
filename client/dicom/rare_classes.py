"""Classes that hardly any patient of a hospital has: a word mapped wrongly, or a finding not to be learned here."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from client.dicom.cache import Cache
from client.dicom.record import RecordInfo
from common.plan.task import TaskKind

ENOUGH_PATIENTS = 2


def rare_classes(cache: Cache) -> list[str]:
    """Return the classes of the study that one patient has, or none, in the order of the plan.

    Empty when nobody has a label. Whether it is one or none is not said. For segmentation label maps are decrypted
    until every class was met at two patients; the background is no class here.
    Raises: CacheInvalidError.
    """
    patients = [records for records in cache.patients().values() if any(record.is_labelled for record in records)]
    classes, is_segmentation = cache.settings.classes, cache.settings.kind is TaskKind.SEGMENTATION
    wanted = set(range(1 if is_segmentation else 0, len(classes)))
    seen: Counter[int] = Counter()
    for records in patients:
        if all(seen[number] >= ENOUGH_PATIENTS for number in wanted):
            return []
        seen.update(_drawn(cache, records) if is_segmentation else _named(records))
    return [classes[number] for number in sorted(wanted) if patients and seen[number] < ENOUGH_PATIENTS]


def _named(records: Iterable[RecordInfo]) -> set[int]:
    labels = [record.label for record in records if record.label is not None]
    several = {number for label in labels if isinstance(label, tuple) for number, yes in enumerate(label) if yes}
    return several | {label for label in labels if isinstance(label, int)}


def _drawn(cache: Cache, records: Iterable[RecordInfo]) -> set[int]:
    maps = (cache.read_label_map(record.record_id) for record in records if record.has_label_map)
    return {int(number) for one in maps for number in np.unique(one)}
