"""Who trains and who validates, and who counts as labelled: decided for each patient by itself.

    bucket(patient) = SHA-256("fedward split/1" || patient key)[:8] / 2^64         in [0, 1)
    validation  <=>  bucket < VALIDATION_SHARE

The patient key is keyed with the site secret, so the bucket is uniform and nobody can choose it. It does not depend on
other patients: new data never moves anybody to the other side, and no patient is on both.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from client.dicom.label_table import EXCLUDED, LabelTable
from client.dicom.persons import Persons
from client.dicom.record import RecordInfo, Split, Stratum

VALIDATION_SHARE = 0.2


def split_of(patient_key: str) -> Split:
    """Return the side a patient is on."""
    digest = hashlib.sha256(b"fedward split/1\0" + patient_key.encode()).digest()
    return Split.VALIDATION if int.from_bytes(digest[:8], "big") < VALIDATION_SHARE * 2**64 else Split.TRAINING


def resolved(records: Iterable[RecordInfo], table: LabelTable, persons: Persons) -> list[RecordInfo]:
    """Give each record its person, label, split and stratum.

    Left out: records that the label table excludes, of people who opted out, of nobody knows whom (``persons``).

    Guarantee: a patient with any labelled record is in the labelled stratum with all records (privacy.md section 1).
    """
    people = persons.of_records(records)
    labels = [(record, table.label_of(record, persons.id_keys.get(record.patient_key, ()))) for record in people]
    kept = [(record, label) for record, label in labels if label != EXCLUDED]
    labelled = {record.patient_key for record, label in kept if label is not None or record.has_label_map}
    return [
        replace(
            record,
            label=label,
            split=split_of(record.patient_key),
            stratum=Stratum.LABELLED if record.patient_key in labelled else Stratum.UNLABELLED,
        )
        for record, label in kept
    ]
