"""One ingest, read top to bottom: walk, read what is new, decide, place, label, report.

    report = ingest(source, cache, settings=settings, secret=secret, labels=Path("labels.csv"), workers=4)

Nothing of a file is parsed here: workers do (``pool.py``). The folder is only read. Interrupted at any instant and run
again, the cache ends with the same records as without the interruption: record names do not depend on the run, files
are decided in one order, and only whole segments count.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from client.dicom.cache import refresh_catalogues
from client.dicom.cache_folder import HEADER, CacheFolder, locked, open_folder, open_or_create, refuse_other_settings
from client.dicom.errors import CacheInvalidError
from client.dicom.images import read_images
from client.dicom.index import Index
from client.dicom.label_table import LabelTable
from client.dicom.labels import (
    LabelSource,
    explain_unmatched,
    label_words,
    read_labels,
    refuse_ambiguous,
    refuse_empty,
)
from client.dicom.opt_outs import OptOuts
from client.dicom.person_decisions import load_rules, save_rules
from client.dicom.person_rules import PersonRules
from client.dicom.persons import Persons, find_persons
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.record import Stratum
from client.dicom.report import IngestReport, Progress, Tally
from client.dicom.segments import SegmentWriter, committed, read_index, remove_leftovers, remove_segments
from client.dicom.settings import IngestSettings
from client.dicom.splits import resolved
from client.dicom.stacks import read_stacks
from client.dicom.store import Readers, Store
from client.dicom.walk import walk
from client.dicom.withdrawals import erase, load_withdrawn, settle_opt_outs
from common.errors import FileUnreadableError


def ingest(
    source: Path,
    cache: Path,
    *,
    settings: IngestSettings,
    secret: bytes,
    labels: Path | None = None,
    workers: int = 1,
    progress: Callable[[Progress], None] | None = None,
    dry_run: bool = False,
    label_encoding: str = "utf-8",
    erase_missing: bool = False,
    rules: PersonRules | None = None,
    label_meanings: Sequence[str] = (),
) -> IngestReport:
    """Bring a cache up to date with a folder of scans; see the module's words.

    ``secret``: the site secret (32 bytes). ``labels``: None keeps the labels of the last ingest. ``dry_run``: decide
    and count everything, write nothing. ``erase_missing``: also erase records whose files are gone from the folder, but
    not those below a folder that could not be read. ``rules``: decisions about persons; None keeps those of before.
    ``label_meanings``: of the hospital's own headers and words (``label_words``). A label table of which no row fits
    changes nothing (``IngestReport.no_label_fits``).
    One bad file never stops the run; it is counted under its code.
    Raises: FileUnreadableError (no such folder), LabelsInvalidError, CacheInvalidError (other settings or secret, busy,
    damaged), WorkerStartError.
    """
    _check_places(source, cache)
    started = time.monotonic()
    names = Pseudonyms.of_site(secret)
    label_source = read_labels(labels, settings, names, label_encoding, label_meanings) if labels else None
    found = list(walk(source))
    tally = Tally(IngestReport(files_found=len(found), dry_run=dry_run), len(found), progress)
    with _opened(cache, secret, settings, rules, dry_run=dry_run) as (folder, store):
        store.know_files(found)
        former = LabelTable.load(folder.path, folder.vault) if folder else LabelTable()
        if label_source:
            refuse_empty(label_source, len(former.rows))
        segments = label_words(label_meanings, settings).segments or former.segments
        readers = Readers(source, settings, secret, workers, store.rules)
        if settings.reads_headers_first:
            read_stacks(found, store, readers, tally, label_source, words=segments)
        else:
            read_images(found, store, readers, tally)
        store.commit()
        _settle_missing(folder, store, tally.report, erase_missing=erase_missing)
        persons = _persons(folder, store, tally.report)
        table = _labels(former, store, label_source, persons, tally.report)
        is_new = table is not former or segments != former.segments
        table.segments = segments
        if folder and is_new and not dry_run:
            table.save(folder.path, folder.vault)
        _count_patients(store.index, table, persons, tally.report)
        if folder and not dry_run:
            refresh_catalogues(folder)
    tally.report.elapsed_s = time.monotonic() - started
    return tally.report


def _check_places(source: Path, cache: Path) -> None:
    if not source.is_dir():
        raise FileUnreadableError(f"{source}: not a folder; give the folder that holds the scans")
    if cache.resolve().is_relative_to(source.resolve()):
        raise CacheInvalidError("the cache must not lie inside the scan folder, which is only read")


@contextmanager
def _opened(
    cache: Path, secret: bytes, settings: IngestSettings, rules: PersonRules | None, *, dry_run: bool
) -> Iterator[tuple[CacheFolder | None, Store]]:
    """Open the cache for writing under its lock, or, in a dry run, only look at it (it need not exist)."""
    if dry_run and not (cache / HEADER).exists():
        rules = rules or PersonRules()
        yield None, Store(Index(), None, settings=settings, secret=secret, withdrawn=OptOuts(), rules=rules)
        return
    folder = open_folder(cache, secret) if dry_run else open_or_create(cache, secret, settings)
    refuse_other_settings(folder, settings)
    withdrawn = load_withdrawn(folder.path, folder.vault)
    former = load_rules(folder.path, folder.vault)
    make = partial(Store, settings=settings, secret=secret, withdrawn=withdrawn, rules=rules or former)
    if dry_run:
        yield folder, make(read_index(folder.segments, folder.vault), None)
        return
    with locked(folder.path):
        if rules is not None and rules != former:
            save_rules(rules, folder.path, folder.vault)
        remove_leftovers(folder.segments)
        index = read_index(folder.segments, folder.vault)
        remove_segments(folder.segments, sorted(index.replaced & set(committed(folder.segments))))
        writer = SegmentWriter(folder.segments, folder.vault)
        try:
            yield folder, make(index, writer)
        except KeyboardInterrupt:
            writer.commit()  # what was read so far need not be read again
            raise


def _settle_missing(folder: CacheFolder | None, store: Store, report: IngestReport, *, erase_missing: bool) -> None:
    """Count records whose files are gone, and erase them if asked to; an empty folder is taken for a lost mount."""
    missing = store.missing()
    report.records_without_file = len(missing)
    hidden = missing & store.out_of_sight()
    report.records_out_of_sight = len(hidden)
    missing -= hidden
    if not (missing and erase_missing and folder) or report.dry_run:
        return
    if report.accepted == 0:
        raise CacheInvalidError("the scan folder holds nothing usable, so nothing was erased; is it mounted?")
    erase(folder, lambda record: record.record_id in missing)
    store.index.drop(missing)
    report.records_without_file = len(hidden)


def _persons(folder: CacheFolder | None, store: Store, report: IngestReport) -> Persons:
    """Bring identifiers of one person together; erase what a join shows to be of somebody who opted out."""
    records = list(store.index.records.values())
    persons = find_persons(records, store.rules, store.withdrawn)
    report.persons = dict(persons.doubts)
    if persons.withdrawn and folder and not report.dry_run:
        gone = {r.record_id for r in settle_opt_outs(folder, store.withdrawn, records, persons)}
        erase(folder, lambda record: record.record_id in gone)
        store.index.drop(gone)
    return persons


def _labels(
    former: LabelTable, store: Store, source: LabelSource | None, persons: Persons, report: IngestReport
) -> LabelTable:
    """Return the labels that hold from now on, and count what became of the table's rows."""
    if source is None:
        return former
    records = persons.of_records(store.index.records.values())
    ambiguous = refuse_ambiguous(source.table, records)
    report.label_rows = {
        **source.counts,
        **explain_unmatched(source.rows, records, store.names),
        "ambiguous_patient_ids": ambiguous,
    }
    return former if report.no_label_fits else source.table


def _count_patients(index: Index, table: LabelTable, persons: Persons, report: IngestReport) -> None:
    records = resolved(index.records.values(), table, persons)
    report.records = len(records)
    report.patients = len({record.patient_key for record in records})
    report.labelled_patients = len({r.patient_key for r in records if r.stratum is Stratum.LABELLED})
