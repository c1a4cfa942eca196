"""Stratum and split are a patient's, with all scans: no two records of one patient are in different strata."""

from client.dicom.label_table import EXCLUDED, LabelTable
from client.dicom.persons import Persons
from client.dicom.record import RecordInfo, Stratum
from client.dicom.splits import resolved, split_of


def record(patient: int, scan: int, **changes) -> RecordInfo:
    key = f"{patient:032x}"
    facts = {
        "patient_key": key,
        "patient_id_key": key,
        "accession_key": "",
        "study_key": f"{patient:016x}{1:016x}",
        "series_key": f"{patient:016x}{2:016x}",
        "instance_key": f"{patient:016x}{100 + scan:016x}",
        "modality": "DX",
        "maker": "OTHER",
        "laterality": "",
        "view": "",
    }
    place = {"shape": (8, 8), "content_digest": b"", "segment": 0, "offset": 0, "length": 0}
    return RecordInfo(record_id=f"{scan:016x}{patient:016x}", **(facts | place | changes))


def sorted_out(records, rows=None):
    people = {each.patient_key: each.patient_key for each in records}
    persons = Persons(people, frozenset(), frozenset(), {}, {})
    return resolved(records, LabelTable(rows or {}), persons)


def test_one_label_takes_all_scans_of_the_patient_into_the_labelled_stratum():
    mixed, none = [record(1, scan) for scan in range(3)], [record(2, scan) for scan in range(2)]
    found = sorted_out([*mixed, *none], {mixed[1].instance_key: 1})
    assert [each.label for each in found] == [None, 1, None, None, None]
    assert [each.stratum for each in found] == [Stratum.LABELLED] * 3 + [Stratum.UNLABELLED] * 2


def test_an_expert_s_outline_in_one_scan_is_a_label_of_the_patient():
    found = sorted_out([record(1, 0), record(1, 1, label_length=7), record(2, 0)])
    assert [each.stratum for each in found] == [Stratum.LABELLED, Stratum.LABELLED, Stratum.UNLABELLED]


def test_a_scan_that_the_table_excludes_makes_nobody_labelled():
    first, second = record(1, 0), record(1, 1)
    [left] = sorted_out([first, second], {first.instance_key: EXCLUDED})
    assert (left.instance_key, left.stratum) == (second.instance_key, Stratum.UNLABELLED)


def test_all_scans_of_a_patient_are_on_the_patient_s_side_of_the_split():
    records = [record(patient, scan) for patient in range(40) for scan in range(3)]
    sides = {}
    for each in sorted_out(records):
        assert each.split is split_of(each.patient_key)
        sides.setdefault(each.patient_key, set()).add(each.split)
    assert all(len(side) == 1 for side in sides.values())
    assert len(set.union(*sides.values())) == 2, "both sides are there"
