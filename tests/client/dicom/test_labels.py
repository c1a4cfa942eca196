"""The label table: what is read, what is refused, which row decides; and who lands in which split and stratum."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.dicom.cache import Cache
from client.dicom.errors import LabelsInvalidError
from client.dicom.ingest import ingest
from client.dicom.labels import read_labels
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.record import Split, Stratum
from client.dicom.splits import VALIDATION_SHARE, split_of
from simulation.hospitals.dicom_writer import uid_for

NAMES = Pseudonyms(b"k" * 32)
HEADER = "key_type,key,label\n"


def table(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


REFUSED = {
    "no header": ("PatientID,7,normal\n", "must begin with the columns"),
    "an empty file": ("", "must begin with the columns"),
    "a class the study does not know": (HEADER + "PatientID,7,tumour\nPatientID,8,normal\n", "1 of 2 rows"),
    "long numbers rounded by a spreadsheet": (HEADER + "AccessionNumber,7.31E+13,normal\n", "1 keys"),
    "long numbers rounded by a German spreadsheet": (
        HEADER.replace(",", ";") + "PatientID;7,31E+13;normal\n",
        "1 keys",
    ),
    "a key type that does not exist": (HEADER + "Patient,7,normal\n", "row 2"),
    "a row that is too short": (HEADER + "PatientID,7\n", "row 2"),
    "a key that is empty": (HEADER + "PatientID,,normal\n", "row 2"),
    "a quote that never ends": (HEADER + 'PatientID,"7,normal\n', "not well-formed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_label_table_is_refused_with_a_count_and_never_with_a_key(case, tmp_path, settings_with):
    text, sentence = REFUSED[case]
    with pytest.raises(LabelsInvalidError, match=sentence) as refused:
        read_labels(table(tmp_path, text), settings_with(), NAMES)
    assert not any(value in str(refused.value) for value in ("31E+13", "Patient,7"))


def test_text_that_is_not_utf8_is_refused_and_read_once_its_encoding_is_named(tmp_path, settings_with):
    path = table(tmp_path, HEADER + "PatientID,患者7,lesion\n", "gb18030")
    with pytest.raises(LabelsInvalidError, match="not utf-8 at byte"):
        read_labels(path, settings_with(), NAMES)
    source = read_labels(path, settings_with(), NAMES, "gb18030")
    assert source.table.rows == {NAMES.label_key("PatientID", "患者7"): 1}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_comma_semicolon_and_tab_are_all_read_and_a_byte_order_mark_is_dropped(delimiter, tmp_path, settings_with):
    text = "\ufeff" + (HEADER + "PatientID, 007 ,Lesion\n").replace(",", delimiter)
    rows = read_labels(table(tmp_path, text), settings_with(), NAMES).table.rows
    assert rows == {NAMES.label_key("PatientID", "007"): 1}


def test_what_spreadsheets_write_around_a_table_and_its_numbers_is_understood(tmp_path, settings_with):
    text = 'sep=;\r\nkey_type;key;label\r\nPatientID;="007";normal\r\nPatientID;"=""08""";lesion\r\n'
    source = read_labels(table(tmp_path, text), settings_with(), NAMES)
    assert [key for _, key, _ in source.rows] == ["007", "08"]


def test_several_classes_at_once_and_none_of_them(tmp_path, settings_with):
    settings = settings_with(kind="multi_label", classes=("effusion", "nodule", "mass"))
    text = HEADER + "PatientID,1,nodule|mass\nPatientID,2,none\n"
    rows = read_labels(table(tmp_path, text), settings, NAMES).table.rows
    assert list(rows.values()) == [(0, 1, 1), (0, 0, 0)]


def test_a_segmentation_file_must_lie_beside_the_table(tmp_path, settings_with):
    settings = settings_with(kind="segmentation", volume=True)
    for bad in ("../mask.nii", "/etc/mask.nii", "a//mask.nii"):
        with pytest.raises(LabelsInvalidError, match="beside or below"):
            read_labels(table(tmp_path, HEADER + f"PatientID,1,{bad}\n"), settings, NAMES)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory, scan, settings_with, secret):
    """Three patients (one, two and three images), ingested without labels."""
    tmp_path = tmp_path_factory.mktemp("unlabelled")
    (tmp_path / "scans").mkdir()
    for patient, count in (("A", 1), ("B", 2), ("C", 3)):
        for number in range(count):
            content = scan(patient=patient, number=number, accession=f"00{patient}1")
            (tmp_path / "scans" / f"{patient}{number}.dcm").write_bytes(content)
    ingest(tmp_path / "scans", tmp_path / "cache", settings=settings_with(), secret=secret)
    return tmp_path


@pytest.fixture
def labelled(unlabelled, tmp_path, settings_with, secret):
    """Label a copy of that cache; return the records of each patient, and the report."""
    cache_folder = shutil.copytree(unlabelled / "cache", tmp_path / "cache")

    def go(rows: str):
        report = ingest(
            unlabelled / "scans",
            cache_folder,
            settings=settings_with(),
            secret=secret,
            labels=table(tmp_path, HEADER + rows),
        )
        cache = Cache.open(cache_folder, secret)
        by_patient = {name: Pseudonyms.of_site(secret).patient("", name) for name in "ABC"}
        return {name: cache.patients().get(key, []) for name, key in by_patient.items()}, report

    return go


def test_the_most_specific_row_decides(labelled):
    instance, series, study = uid_for("C", "S1", 1), uid_for("C", "S1"), uid_for("C", "study")
    patients, _ = labelled(
        f"SOPInstanceUID,{instance},lesion\nSeriesInstanceUID,{series},normal\n"
        f"StudyInstanceUID,{study},lesion\nPatientID,C,lesion\nPatientID,B,lesion\n"
    )
    assert sorted(record.label for record in patients["C"]) == [0, 0, 1]
    assert [record.label for record in patients["B"]] == [1, 1]
    assert [record.label for record in patients["A"]] == [None]


def test_a_patient_with_one_label_is_in_the_labelled_stratum_with_all_scans(labelled):
    patients, report = labelled(f"SOPInstanceUID,{uid_for('C', 'S1', 2)},lesion\n")
    assert {record.stratum for record in patients["C"]} == {Stratum.LABELLED}
    assert [record.label for record in patients["C"]].count(None) == 2
    assert {record.stratum for name in "AB" for record in patients[name]} == {Stratum.UNLABELLED}
    assert report.labelled_patients == 1


def test_conflicting_rows_keep_their_patient_out_of_training_and_equal_rows_do_no_harm(labelled):
    patients, report = labelled("PatientID,A,normal\nPatientID,A,lesion\nPatientID,B,normal\nPatientID, b ,normal\n")
    assert patients["A"] == []
    assert [record.label for record in patients["B"]] == [0, 0]
    assert report.label_rows["conflicting"] == 1
    assert report.records == 5


def test_explicit_words_exclude_or_unlabel_what_a_wider_row_would_label(labelled):
    rows = f"PatientID,C,lesion\nSOPInstanceUID,{uid_for('C', 'S1', 0)},exclude\n"
    patients, _ = labelled(rows + f"SOPInstanceUID,{uid_for('C', 'S1', 1)},unlabelled\n")
    assert [record.label for record in patients["C"]].count(1) == 1
    assert len(patients["C"]) == 2


def test_keys_that_lost_their_leading_zeros_are_counted_and_not_guessed(labelled):
    patients, report = labelled("AccessionNumber,A1,normal\nPatientID,9,normal\n")
    assert (report.label_rows["matched"], report.label_rows["unmatched"]) == (0, 2)
    assert report.label_rows["lost_leading_zeros"] == 0, "only numbers lose zeros"
    assert patients["A"][0].label is None


def test_a_number_without_its_zeros_is_reported(tmp_path, scan, settings_with, secret):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.dcm").write_bytes(scan(accession="000123"))
    labels = table(tmp_path, HEADER + "AccessionNumber,123,lesion\n")
    report = ingest(tmp_path / "scans", tmp_path / "c", settings=settings_with(), secret=secret, labels=labels)
    assert report.label_rows["lost_leading_zeros"] == 1
    assert report.labelled_patients == 0


def test_two_people_with_one_number_are_not_labelled_by_it(tmp_path, scan, changed, settings_with, secret):
    (tmp_path / "scans").mkdir()
    for number, issuer in enumerate(("North", "South")):
        content = changed(scan(patient="7", number=number), IssuerOfPatientID=issuer)
        (tmp_path / "scans" / f"{number}.dcm").write_bytes(content)
    labels = table(tmp_path, HEADER + "PatientID,7,lesion\n")
    report = ingest(tmp_path / "scans", tmp_path / "c", settings=settings_with(), secret=secret, labels=labels)
    assert report.label_rows["ambiguous_patient_ids"] == 1
    assert (report.records, report.labelled_patients) == (0, 0)


def test_new_labels_need_no_scan_to_be_read_again_and_no_table_keeps_the_old_ones(labelled, tmp_path, secret):
    labelled("PatientID,A,normal\n")
    patients, report = labelled("PatientID,A,lesion\n")
    assert (report.files_read, patients["A"][0].label) == (0, 1)
    cache = Cache.open(tmp_path / "cache", secret)
    assert sum(record.label is not None for record in cache.records) == 1


def test_a_frozen_study_keeps_patients_labels_strata_and_splits(labelled, tmp_path, secret, scan, settings_with):
    study = "0" * 64
    labelled("PatientID,A,normal\n")
    Cache.open(tmp_path / "cache", secret).freeze(study)
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "new.dcm").write_bytes(scan(patient="D", number=1))
    ingest(tmp_path / "later", tmp_path / "cache", settings=settings_with(), secret=secret)
    labelled("PatientID,A,lesion\nPatientID,B,lesion\n")
    cache = Cache.open(tmp_path / "cache", secret)
    frozen = cache.freeze(study)
    assert (len(cache), len(frozen)) == (7, 6)
    labels = sorted((r.label is not None, r.label or 0, r.stratum) for r in frozen.records)
    assert labels == [(False, 0, Stratum.UNLABELLED)] * 5 + [(True, 0, Stratum.LABELLED)]


@given(st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), min_size=1, max_size=50, unique=True))
def test_a_patients_split_depends_on_nobody_else(keys):
    assert [split_of(key) for key in keys] == [split_of(key) for key in reversed(keys)][::-1]


def test_about_one_patient_in_five_validates():
    sides = [split_of(NAMES.patient("", str(number))) for number in range(4000)]
    share = sides.count(Split.VALIDATION) / len(sides)
    assert abs(share - VALIDATION_SHARE) < 0.03, "four standard deviations"


SAME_PERSON = [("p-7", "P-7"), (" P-7 ", "P-7"), ("Ｐ-7", "P-7"), ("P-7\0", "P-7")]


@pytest.mark.parametrize("spelling", SAME_PERSON)
def test_spellings_of_one_person_meet_in_one_key(spelling):
    assert NAMES.patient("North", spelling[0]) == NAMES.patient("north ", spelling[1])


def test_keys_depend_on_secret_issuer_purpose_and_boundaries():
    keys = {
        NAMES.patient("", "7"),
        NAMES.patient("7", ""),
        NAMES.patient("North", "7"),
        NAMES.patient("Nort", "h7"),
        NAMES.label_key("PatientID", "7"),
        NAMES.label_key("AccessionNumber", "7"),
        Pseudonyms(b"x" * 32).patient("", "7"),
    }
    assert len(keys) == 7
