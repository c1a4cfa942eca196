"""A patient opts out: the scans leave the cache, and no later ingest takes them again (GDPR articles 17 and 21)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from client.dicom.cache_folder import CacheFolder, locked
from client.dicom.record import RecordInfo
from client.dicom.segments import (
    SegmentWriter,
    blob_name,
    committed,
    map_shard,
    read_index,
    read_part,
    remove_leftovers,
    remove_segments,
)
from client.dicom.vault import Vault
from client.processes.packing import packed, unpacked
from common.files import replace_atomically

FILE_NAME = "withdrawn.sealed"


def load_withdrawn(folder: Path, vault: Vault) -> frozenset[str]:
    """Return the keys of all patients who opted out.

    Raises: CacheInvalidError.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return frozenset()
    return frozenset(unpacked(vault.open("withdrawn", "", path.read_bytes()))["patients"])


def withdraw(folder: CacheFolder, patient_key: str) -> int:
    """Note the opt-out, then rewrite the shards without the patient's arrays; return how many records were erased.

    The note comes first and is durable: from then on nobody reads the scans, even if the rewriting is interrupted
    (calling it again finishes it). Frozen studies keep the patient as a null record.
    Raises: CacheInvalidError.
    """
    with locked(folder.path):
        remove_leftovers(folder.segments)
        withdrawn = load_withdrawn(folder.path, folder.vault) | {patient_key}
        content = packed({"patients": sorted(withdrawn)})
        replace_atomically(folder.path / FILE_NAME, folder.vault.seal("withdrawn", "", content), 0o600)
        return erase(folder, lambda record: record.patient_key == patient_key)


def erase(folder: CacheFolder, is_gone: Callable[[RecordInfo], bool]) -> int:
    """Rewrite every shard that holds a record to be erased, living or superseded; return how many there were.

    The caller holds the folder's lock.
    Raises: CacheInvalidError.
    """
    erased = 0
    for number in committed(folder.segments):
        part = read_part(folder.segments, number, folder.vault)
        found = sum(is_gone(RecordInfo.from_row(row)) for row in part["records"])
        if found:
            _rewrite(folder, number, is_gone)
            erased += found
    return erased


def _rewrite(folder: CacheFolder, number: int, is_gone: Callable[[RecordInfo], bool]) -> None:
    """Copy what stays of one segment into a new one that replaces it; delete the old one.

    Entries are taken from the live index, not from the old segment: replayed at the end, old ones would win over newer.
    """
    live = read_index(folder.segments, folder.vault)
    part = read_part(folder.segments, number, folder.vault)
    writer = SegmentWriter(folder.segments, folder.vault, replaces=[number])
    for row in part["files"]:
        writer.note(file=live.files[row[0]], dropped=[])
    for row in part["stacks"]:
        writer.note(stack=live.stacks[row[0]], dropped=[])
    gone = {record_id for record_id in part["dropped"] if record_id not in live.records}
    gone |= {record.record_id for record in live.records.values() if is_gone(record)}
    writer.note(dropped=sorted(gone))
    shard = map_shard(folder.segments, number)
    for record in live.records.values():
        if record.segment == number and not is_gone(record):
            _move(folder, writer, record, shard)
    writer.commit()
    remove_segments(folder.segments, [number])


def _move(folder: CacheFolder, writer: SegmentWriter, record: RecordInfo, shard: memoryview) -> None:
    name = blob_name(record.segment, record.record_id)
    end = record.offset + record.length
    levels = folder.vault.open("levels", name, shard[record.offset : end])
    segment, offset, length = writer.place("levels", record.record_id, levels)
    if record.has_label_map:
        label_map = folder.vault.open("label map", name, shard[end : end + record.label_length])
        writer.place("label map", record.record_id, label_map)
    writer.note_record(replace(record, segment=segment, offset=offset, length=length))
