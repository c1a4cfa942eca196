"""Making a catalogue from what it stands for: index parts, labels, rules for persons, opt-outs, a study's manifest."""

import logging
from typing import Final

from client.dicom.cache_folder import CacheFolder
from client.dicom.catalogue import Patient, make_catalogue
from client.dicom.catalogue_file import RECORDS
from client.dicom.errors import CacheInvalidError
from client.dicom.label_table import LabelTable
from client.dicom.person_decisions import load_rules
from client.dicom.persons import find_persons
from client.dicom.record import RecordInfo, Split, Stratum
from client.dicom.segments import committed, index_path, read_index
from client.dicom.splits import resolved
from client.dicom.studies import StudyManifest, load_manifest
from client.dicom.withdrawals import load_withdrawn

SHORT_S: Final = 2.0
BYTES_PER_S: Final = 2e6  # of index parts, on one core: about 4000 records

_log = logging.getLogger("fedward.site")


def made_from_index(folder: CacheFolder, study: str, marks: bytes) -> bytes:
    """Return the catalogue of the cache as it is now, or of a frozen ``study``; a wait over 2 s is announced.

    Raises: CacheInvalidError: something is damaged, or the study was never frozen.
    """
    manifest = _manifest(folder, study) if study else None
    _announce(folder)
    stored = read_index(folder.segments, folder.vault, records_only=True).records.values()
    withdrawn = load_withdrawn(folder.path, folder.vault)
    persons = find_persons(stored, load_rules(folder.path, folder.vault), withdrawn)
    present = [record for record in stored if persons.person_of[record.patient_key] not in persons.withdrawn]
    if manifest is None:
        records = resolved(present, LabelTable.load(folder.path, folder.vault), persons)
    else:
        records = manifest.applied(present)
    return make_catalogue(
        folder.vault,
        study or RECORDS,
        records,
        marks=marks,
        doubts=dict(persons.doubts),
        absent=_absent(manifest, records) if manifest else (),
    )


def _manifest(folder: CacheFolder, study: str) -> StudyManifest:
    found = load_manifest(folder, study)
    if found is None:
        raise CacheInvalidError("this study was never frozen here; approve its plan first")
    return found


def _absent(manifest: StudyManifest, records: list[RecordInfo]) -> list[Patient]:
    """Return the patients of a study who have no record here any more."""
    here = {record.patient_key for record in records}
    gone = [(key, kind) for key, kind in manifest.patients.items() if key not in here]
    return [Patient(key, Stratum(stratum), Split(split), 0) for key, (stratum, split) in gone]


def _announce(folder: CacheFolder) -> None:
    sizes = [index_path(folder.segments, number).stat().st_size for number in committed(folder.segments)]
    seconds = sum(sizes) / BYTES_PER_S
    if seconds > SHORT_S:
        _log.warning("the cache's catalogue is made anew, about %.0f s; later openings take none of it", seconds)
