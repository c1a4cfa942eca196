"""The parent's part of a 2-D ingest: every file is decided by itself."""

from collections.abc import Iterator, Sequence

from client.dicom.index import FileEntry
from client.dicom.intensity import level_bytes
from client.dicom.pool import Outcome, Pool, Request
from client.dicom.reject import RejectCode
from client.dicom.report import Tally
from client.dicom.settings import FileKind
from client.dicom.store import Readers, Store, trusted
from client.dicom.walk import FoundFile

WORKER = "client.dicom.image_worker"
FILES_PER_REQUEST = 16


def read_images(found: Sequence[FoundFile], store: Store, readers: Readers, tally: Tally) -> None:
    """Read every image that is new or changed; count all."""
    new: list[FoundFile] = []
    for file in found:
        entry = store.known(file)
        if file.code is not None or entry is not None:
            tally.count(file.code if entry is None else verdict_of(entry, store))
            tally.step()
        else:
            new.append(file)
    with readers.pool(WORKER, max_record_bytes=level_bytes(readers.settings.record_shape)) as pool:
        for file, outcome in read_in_workers(pool, "images", new):
            tally.report.files_read += 1
            entry = store.take_file(file, trusted(outcome, readers.settings), kind=FileKind.IMAGE)
            store.commit_if_full()
            tally.count(verdict_of(entry, store))
            tally.step()


def verdict_of(entry: FileEntry, store: Store) -> RejectCode | None:
    """Return why a file is not in the cache, or None."""
    if entry.code:
        return RejectCode(entry.code)
    alive = any(record_id in store.index.records for record_id in entry.record_ids)
    return None if alive else RejectCode.WITHDRAWN


def read_in_workers(pool: Pool, task: str, files: Sequence[FoundFile]) -> Iterator[tuple[FoundFile, Outcome]]:
    """Yield each file with what a worker made of it, in the order given."""
    batches = [files[i : i + FILES_PER_REQUEST] for i in range(0, len(files), FILES_PER_REQUEST)]
    requests = (Request(task, [file.name for file in batch]) for batch in batches)
    for batch, (_, outcomes) in zip(batches, pool.outcomes(requests), strict=True):
        yield from zip(batch, outcomes, strict=True)
