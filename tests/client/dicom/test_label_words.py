"""Label tables as hospitals have them: own headers, own words, and what is said about those that mean nothing."""

import re

import pytest

from client.dicom.cache import Cache
from client.dicom.errors import LabelsInvalidError
from client.dicom.ingest import ingest
from client.dicom.label_words import LabelWords
from client.dicom.labels import read_labels
from client.dicom.pseudonyms import Pseudonyms

NAMES = Pseudonyms(b"k" * 32)
CLASSES = ("normal", "consolidation", "effusion")


@pytest.fixture
def read(tmp_path, settings_with):
    """Read a table; return the labels by key type and key, as words of the study."""

    def go(text: str, *meanings: str, kind: str = "classification") -> dict[str, object]:
        path = tmp_path / "labels.csv"
        path.write_text(text, encoding="utf-8")
        source = read_labels(path, settings_with(classes=CLASSES, kind=kind), NAMES, meanings=meanings)
        return {key: source.table.rows[NAMES.label_key(kind_of_key, key)] for kind_of_key, key, _ in source.rows}

    return go


EXCLUDED, UNLABELLED = -1, -2
TABLES = {
    "own words": (
        "PatientID,diagnosis\n7,Pneumonie\n8,kein  Befund\n9,normal\n",
        ("diagnosis:Pneumonie=consolidation", "Diagnosis:Kein Befund=normal"),
        {"7": 1, "8": 0, "9": 0},
    ),
    "own headers": ("Pat-Nr;Befund\n7;normal\n", ("Pat-Nr=PatientID", "Befund:o.B.=normal"), {"7": 0}),
    "the most specific key of a row": (
        "patient id\taccession_number\tlabel\n7\tA1\tnormal\n8\t\teffusion\n",
        (),
        {"A1": 0, "8": 2},
    ),
    "other columns are left alone": (
        "name,PatientID,label,remark\nMeier,7,normal,\nMeier,8,,x\n",
        (),
        {"7": 0, "8": UNLABELLED},
    ),
    "words to leave out": (
        "key_type,key,label\nPatientID,7,unklar\nPatientID,8,Fehlaufnahme\n",
        ("label:unklar=unlabelled", "label:Fehlaufnahme=exclude"),
        {"7": UNLABELLED, "8": EXCLUDED},
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_with_the_hospitals_own_headers_and_words_is_read(case, read):
    text, meanings, labels = TABLES[case]
    assert read(text, *meanings) == labels


def test_a_column_for_each_finding_makes_one_answer(read):
    text = "PatientID,infiltrate,effusion\n1,1,0\n2,0,0\n3,1,1\n4,1,?\n"
    words = [f"infiltrate:{n}={c}" for n, c in (("1", "consolidation"), ("0", "none"))]
    words += [f"effusion:{n}={c}" for n, c in (("1", "effusion"), ("0", "none"), ("?", "unlabelled"))]
    assert read(text, *words, kind="multi_label") == {
        "1": (0, 1, 0),
        "2": (0, 0, 0),
        "3": (0, 1, 1),
        "4": UNLABELLED,
    }


REFUSED_MAPS = {
    "no form": ("PatientID,label\n7,normal\n", ("diagnosis",), "has no effect"),
    "a class that is none": ("PatientID,label\n7,normal\n", ("label:x=tumour",), "does not have"),
    "two meanings": ("PatientID,label\n7,normal\n", ("label:x=normal", "label: X =effusion"), "two classes"),
    "a column that is not there": ("PatientID,label\n7,normal\n", ("diagnosis:x=normal",), "no column"),
    "a key type that is none": ("Nr,label\n7,normal\n", ("Nr=Number",), "names scans by one of"),
    "a key for our own form": ("key_type,key,label\nPatientID,7,normal\n", ("key=PatientID",), "no other map"),
    "nothing that names scans": ("Nr,label\n7,normal\n", (), "names scans"),
    "nothing that holds labels": ("PatientID,diagnosis\n7,normal\n", (), "holds labels"),
}


@pytest.mark.parametrize("case", REFUSED_MAPS)
def test_a_map_that_has_no_effect_is_refused(case, read):
    text, meanings, sentence = REFUSED_MAPS[case]
    with pytest.raises(LabelsInvalidError, match=sentence):
        read(text, *meanings)


SEGMENTS = {
    "a class that the study does not have": ("segment:Leber=spleen", "'spleen'"),
    "a word for whole rows": ("segment:Leber=exclude", "'exclude'"),
    "two meanings": ("segment:Leber=effusion", "two classes"),
}


@pytest.mark.parametrize("case", SEGMENTS)
def test_a_meaning_of_a_segment_that_cannot_be_is_refused(case):
    entry, words = SEGMENTS[case]
    with pytest.raises(LabelsInvalidError, match=words):
        LabelWords.parse(("segment:LEBER=consolidation", entry), CLASSES, has_segments=True)


def test_in_other_studies_segment_is_a_column_like_any_other(read):
    assert read("PatientID,segment\n7,S1\n", "segment:S1=effusion") == {"7": 2}


def test_unknown_words_are_named_with_their_counts(read):
    with pytest.raises(LabelsInvalidError, match=re.escape("3 of 4 rows")) as refused:
        read("PatientID,label\n1,normal\n2,Pneumonie\n3,unklar\n4,Pneumonie\n")
    assert "'Pneumonie' 2, 'unklar' 1" in str(refused.value)


@pytest.mark.parametrize(
    "words", [["19700101"] * 3, ["MEIER", "WANG^XIAO"], [f"Meier {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]]
)
def test_a_column_that_holds_no_labels_is_not_repeated(words, read):
    with pytest.raises(LabelsInvalidError, match="is this the column of labels") as refused:
        read("PatientID,label\n" + "".join(f"{n},{word}\n" for n, word in enumerate(words)))
    assert not any(word in str(refused.value) for word in words)


def test_what_may_be_a_name_is_counted_beside_words_and_not_repeated(read):
    with pytest.raises(LabelsInvalidError, match="'unklar' 1, and 1 that may be names") as refused:
        read("PatientID,label\n1,unklar\n2,MEIER\n")
    assert "MEIER" not in str(refused.value)


def test_a_table_of_which_no_row_fits_changes_nothing(tmp_path, scan, settings_with, secret):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.dcm").write_bytes(scan())
    labels = tmp_path / "labels.csv"

    def labelled(text: str):
        labels.write_text(f"PatientID,label\n{text}\n")
        report = ingest(tmp_path / "scans", tmp_path / "c", settings=settings_with(), secret=secret, labels=labels)
        return report.no_label_fits, report.labelled_patients, Cache.open(tmp_path / "c", secret).records[0].label

    assert labelled("P1,lesion") == (False, 1, 1)
    assert labelled("P9,normal") == (True, 1, 1)
    with pytest.raises(LabelsInvalidError, match="but 1 labels are known here, so nothing was changed"):
        labelled("")
    assert Cache.open(tmp_path / "c", secret).records[0].label == 1


def test_a_hospital_without_labels_may_have_a_table_without_rows(tmp_path, scan, settings_with, secret):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.dcm").write_bytes(scan())
    (tmp_path / "labels.csv").write_text("PatientID,label\n")
    for _ in range(2):
        report = ingest(
            tmp_path / "scans",
            tmp_path / "c",
            settings=settings_with(),
            secret=secret,
            labels=tmp_path / "labels.csv",
        )
        assert (report.records, report.labelled_patients) == (1, 0)
