"""One person is one person, whatever the files say about it; what no rule decides is counted for staff."""

import shutil

import pytest
from pydicom.dataset import Dataset

from client.dicom import record, segments
from client.dicom.cache import Cache
from client.dicom.cache_folder import open_folder
from client.dicom.errors import PersonsInvalidError
from client.dicom.identity import identity_of
from client.dicom.identity_keys import Identity
from client.dicom.ingest import ingest
from client.dicom.opt_outs import OptOuts
from client.dicom.person_decisions import decided, read_merged
from client.dicom.person_rules import PersonFrom, PersonRules
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.segments import read_index
from client.dicom.withdrawals import load_withdrawn, opt_out

NAMES = Pseudonyms(b"k" * 32)


def header(
    patient_id: str | bytes = "P1", charset: str | None = None, others: list[dict[str, str]] | None = None, **more
):
    ds = Dataset()
    ds.StudyInstanceUID = "1.2.3"
    if isinstance(patient_id, bytes):
        ds.add_new("PatientID", "UN", patient_id)
    else:
        ds.PatientID = patient_id
    if charset:
        ds.SpecificCharacterSet = charset
    if others:
        ds.OtherPatientIDsSequence = [header(**item) for item in others]
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def of(*headers: Dataset) -> set[tuple[str, str]]:
    return {(identity.patient_key, identity.patient_id_key) for identity in identities(*headers)}


def identities(*headers: Dataset) -> list[Identity]:
    return [identity_of(one, NAMES) for one in headers]


SAME = {
    "zero width": (header("123"), header("12\u200b3"), header("\ufeff123\u2060")),
    "full width": (header("123"), header("１２３")),
    "padding": (header("P1"), header(" P1 "), header(b"P1\0\0")),
    "case": (header("ab-7"), header("AB-7")),
    "composed or not": (header("MÜ1", "ISO_IR 192"), header("MU\u03081", "ISO_IR 192")),
    "UTF-8 that nobody declared": (header("MÜ1", "ISO_IR 192"), header("MÜ1".encode().decode("latin-1"))),
    "UTF-8 declared as Latin-1": (header("MÜ1"), header("MÜ1".encode().decode("latin-1"), "ISO_IR 100")),
    "an issuer's qualifier beside its name": (
        header(IssuerOfPatientID="HOSP"),
        header(IssuerOfPatientID="HOSP ", IssuerOfPatientIDQualifiersSequence=[Dataset()]),
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_one_identifier_has_one_key_however_it_is_written(case):
    assert len(of(*SAME[case])) == 1


def test_letters_of_an_unknown_encoding_stay_apart_and_are_counted():
    korean = [header(text.encode("euc-kr").decode("latin-1")) for text in ("가", "나")]
    assert len(of(*korean)) == 2
    assert [identity.doubts for identity in identities(*korean)] == [("undeclared_characters",)] * 2


@pytest.mark.parametrize("word", ["ANONYMOUS", "anon", "0", "000", "UNKNOWN", "N/A", "XXXX", "99999", "--", "No ID"])
def test_words_that_stand_for_nobody_are_doubted(word):
    assert identities(header(word))[0].doubts == ("placeholder",)


@pytest.mark.parametrize("word", ["7", "ANON0017", "0012345", "TEST-12", "9", "XY"])
def test_identifiers_that_only_resemble_such_words_are_not_doubted(word):
    assert identities(header(word))[0].doubts == ()


@pytest.fixture
def archive(tmp_path, scan, changed, settings_with, secret):
    """An archive of one image for each description; ``ingested`` returns report and persons (sets of image numbers)."""

    class Archive:
        source, cache = tmp_path / "scans", tmp_path / "cache"
        count = 0

        def add(self, place: str = "", patient: str | None = "P1", **attributes: object) -> None:
            content = changed(scan(patient=patient or "", number=self.count), **attributes)
            folder = self.source / place
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{self.count}.dcm").write_bytes(content)
            self.count += 1

        def ingested(self, **more):
            return ingest(self.source, self.cache, settings=settings_with(), secret=secret, **more)

        def persons(self) -> list[int]:
            """Return how many images each person has."""
            return sorted(len(records) for records in Cache.open(self.cache, secret).patients().values())

    return Archive()


def other_ids(*pairs: tuple[str, str]) -> list[Dataset]:
    items = []
    for identifier, issuer in pairs:
        item = Dataset()
        item.PatientID, item.TypeOfPatientID = identifier, "TEXT"
        if issuer:
            item.IssuerOfPatientID = issuer
        items.append(item)
    return items


# Description of each image -> images of each person, and what is counted.
ARCHIVES = {
    "an issuer that one file does not name": ([{}, {"IssuerOfPatientID": "HOSP"}], [2], {}),
    "two issuers": (
        [{"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "B"}],
        [1, 1],
        {"conflicting_issuers": 1},
    ),
    "two issuers, and a file that names neither": (
        [{"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "B"}, {}],
        [1, 1],
        {"conflicting_issuers": 1, "issuer_unknown": 1},
    ),
    "another identifier of the same person": (
        [{"patient": "OLD1", "OtherPatientIDs": "NEW1"}, {"patient": "NEW1"}, {"patient": "P3"}],
        [1, 2],
        {"several_identifiers": 1},
    ),
    "another identifier that no file has as its own": (
        [{"patient": "A1", "OtherPatientIDs": ["X1", "Y1"]}, {"patient": "B1", "OtherPatientIDs": "Y1"}],
        [2],
        {"several_identifiers": 1},
    ),
    "another identifier, with its issuer": (
        [
            {"patient": "A1", "OtherPatientIDsSequence": other_ids(("N1", "NORTH"))},
            {"patient": "N1", "IssuerOfPatientID": "NORTH"},
            {"patient": "N1", "IssuerOfPatientID": "SOUTH"},
        ],
        [1, 2],
        {"conflicting_issuers": 1, "several_identifiers": 1},
    ),
    "another identifier that stands for nobody": (
        [{"patient": "A1", "OtherPatientIDs": "NONE"}, {"patient": "B1", "OtherPatientIDs": "NONE"}],
        [1, 1],
        {},
    ),
    "a placeholder for four people": (
        [{"patient": "ANONYMOUS", "PatientBirthDate": f"19{50 + n}0101"} for n in range(4)],
        [4],
        {"placeholder": 1, "several_birth_years": 1},
    ),
    "one identifier of a woman and a man": (
        [{"PatientSex": "F", "PatientBirthDate": ""}, {"PatientSex": "M"}],
        [2],
        {"several_sexes": 1},
    ),
    "leading zeros": ([{"patient": "0012345"}, {"patient": "12345"}], [1, 1], {"similar_identifiers": 2}),
    "dashes and spaces": (
        [{"patient": "123-456"}, {"patient": "123456"}, {"patient": "123 456"}],
        [1, 1, 1],
        {"similar_identifiers": 3},
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_identifiers_of_one_person_meet_and_doubts_are_counted(case, archive):
    images, persons, doubts = ARCHIVES[case]
    for image in images:
        archive.add(**image)
    report = archive.ingested()
    assert (archive.persons(), report.persons) == (persons, doubts)
    assert report.patients == len(persons)


def test_a_table_of_former_identifiers_joins_persons_and_is_kept(archive, tmp_path):
    for patient in ("OLD1", "NEW1", "P3"):
        archive.add(patient=patient)
    table = tmp_path / "persons.csv"
    table.write_text("former_id;current_id\nold1;NEW1\n")
    archive.ingested(rules=PersonRules(merged=read_merged(table, Pseudonyms.of_site(bytes(range(32))))))
    assert archive.persons() == [1, 2]
    again = archive.ingested()
    assert (again.files_read, archive.persons()) == (0, [1, 2])


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "former_id,current_id\n1,\n", "", 'former_id,current_id\n"1,2\n'])
def test_a_table_of_persons_of_the_wrong_form_is_refused_without_a_value(text, tmp_path):
    path = tmp_path / "persons.csv"
    path.write_text(text)
    with pytest.raises(PersonsInvalidError):
        read_merged(path, NAMES)


PLACES = {
    PersonFrom.STUDY: [1, 1, 2],
    PersonFrom.FOLDER: [2, 2],
}


@pytest.mark.parametrize("person_from", PLACES)
def test_staff_may_decide_that_a_study_or_a_folder_is_a_person(person_from, archive):
    archive.add("a/1", None, PatientID=None)
    archive.add("a/2", "ANONYMOUS")
    archive.add("b", "CASE")
    archive.add("b", "CASE")
    before = archive.ingested()
    assert before.rejected == {"no_patient_id": 1}
    rules = PersonRules(person_from, ("CASE",), decided_by="Dr Who")
    after = archive.ingested(rules=rules)
    assert (after.files_read, after.rejected) == (4, {}), "a decision has all files read again"
    assert archive.persons() == PLACES[person_from]
    assert after.persons[f"from_{person_from}"] == len(PLACES[person_from])
    assert archive.ingested().files_read == 0, "a decision holds for later ingests"


DECISIONS = {
    "nobody's": ({"person_from": PersonFrom.STUDY}, "name who made it"),
    "without effect": ({"placeholders": ["CASE"], "decided_by": "Dr Who"}, "no effect"),
    "about nothing": ({"decided_by": "Dr Who"}, "belongs to"),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_a_decision_about_persons_has_a_name_and_an_effect(case):
    given, sentence = DECISIONS[case]
    nothing = {"person_from": None, "placeholders": [], "decided_by": "", "same_persons": None}
    with pytest.raises(PersonsInvalidError, match=sentence):
        decided(**(nothing | given), former=PersonRules(), names=NAMES)


def leaving(secret: bytes, patient_id: str, issuer: str = "") -> OptOuts:
    names = Pseudonyms.of_site(secret)
    return OptOuts(identifiers=frozenset({(names.label_key("PatientID", patient_id), names.issuer(issuer))}))


# Who asks -> records erased, persons. The record that names no issuer may be of whoever opted out, so it goes as well.
OPT_OUTS = {
    "under every issuer": (("7", ""), 4, 2),
    "under one issuer": (("7", "NORTH"), 3, 1),
    "by a former identifier": (("OLD", ""), 3, 1),
}


@pytest.mark.parametrize("case", OPT_OUTS)
def test_an_opt_out_reaches_every_record_of_the_person_and_later_ones_too(case, archive, secret):
    archive.add(patient="7", IssuerOfPatientID="NORTH", OtherPatientIDsSequence=other_ids(("OLD", "")))
    archive.add(patient="OLD")
    archive.add(patient="7", IssuerOfPatientID="SOUTH")
    archive.add(patient="7")
    archive.add(patient="9")
    archive.ingested()
    (patient_id, issuer), erased, persons = OPT_OUTS[case]
    reached = opt_out(open_folder(archive.cache, secret), leaving(secret, patient_id, issuer))
    assert (reached.erased_records, reached.persons) == (erased, persons)
    shutil.rmtree(archive.source)
    archive.add(patient="7", IssuerOfPatientID="NORTH")
    archive.add(patient="OLD", IssuerOfPatientID="ELSE")
    archive.add(patient="11", OtherPatientIDs="OLD")
    assert archive.ingested().rejected == {"withdrawn": 3}


def test_an_opt_out_of_somebody_who_is_not_here_is_kept(archive, secret):
    archive.add(patient="9")
    archive.ingested()
    reached = opt_out(open_folder(archive.cache, secret), leaving(secret, "8"))
    assert (reached.erased_records, reached.persons) == (0, 0)
    archive.add(patient="8")
    assert archive.ingested().rejected == {"withdrawn": 1}


def test_a_join_that_becomes_known_later_reaches_who_opted_out(archive, secret, tmp_path):
    archive.add(patient="OLD")
    archive.add(patient="NEW")
    archive.ingested()
    opt_out(open_folder(archive.cache, secret), leaving(secret, "OLD"))
    assert archive.persons() == [1]
    table = tmp_path / "persons.csv"
    table.write_text("former_id,current_id\nOLD,NEW\n")
    archive.ingested(rules=PersonRules(merged=read_merged(table, Pseudonyms.of_site(secret))))
    assert archive.persons() == []
    folder = open_folder(archive.cache, secret)
    assert read_index(folder.segments, folder.vault).records == {}
    assert len(load_withdrawn(folder.path, folder.vault).patients) >= 1


def test_a_study_keeps_the_persons_of_its_approval_when_two_turn_out_to_be_one(archive, secret):
    archive.add(patient="OLD")
    archive.add(patient="NEW")
    archive.ingested()
    Cache.open(archive.cache, secret).freeze("0" * 64)
    archive.add(patient="NEW", OtherPatientIDs="OLD")
    archive.ingested()
    assert archive.persons() == [3]
    frozen = Cache.open(archive.cache, secret).frozen("0" * 64)
    assert sorted(len(records) for records in frozen.patients().values()) == [1, 1]


def test_slices_of_one_series_meet_although_one_does_not_name_the_issuer(
    tmp_path, scan, changed, settings_with, secret
):
    source = tmp_path / "scans"
    source.mkdir()
    for number in range(8):
        content = scan(number=number)
        issuer = {} if number == 3 else {"IssuerOfPatientID": "HOSP"}
        (source / f"{number}.dcm").write_bytes(changed(content, **issuer))
    settings = settings_with(volume=True)
    (source / "3.dcm").rename(tmp_path / "later.dcm")
    first = ingest(source, tmp_path / "cache", settings=settings, secret=secret)
    assert first.rejected == {"series_missing_slice": 7}
    (tmp_path / "later.dcm").rename(source / "3.dcm")
    report = ingest(source, tmp_path / "cache", settings=settings, secret=secret)
    assert (report.records, report.patients, report.rejected) == (1, 1, {})
    assert ingest(source, tmp_path / "cache", settings=settings, secret=secret).files_read == 0


def test_a_series_of_two_issuers_is_refused(tmp_path, scan, changed, settings_with, secret):
    (tmp_path / "scans").mkdir()
    for number in range(6):
        content = changed(scan(number=number), IssuerOfPatientID="NORTH" if number % 2 else "SOUTH")
        (tmp_path / "scans" / f"{number}.dcm").write_bytes(content)
    report = ingest(tmp_path / "scans", tmp_path / "cache", settings=settings_with(volume=True), secret=secret)
    assert report.rejected == {"series_mixed": 6}


def test_a_file_that_gets_another_patient_leaves_no_record_of_the_former_one(tmp_path, scan, settings_with, secret):
    source, settings = tmp_path / "scans", settings_with(volume=True)
    source.mkdir()
    for patient in ("P1", "P2"):
        for number in range(5):
            (source / f"{number}.dcm").write_bytes(scan(patient=patient, number=number))
        report = ingest(source, tmp_path / "cache", settings=settings, secret=secret)
    assert (report.records, report.patients, report.records_without_file) == (1, 1, 0)


def test_nothing_is_erased_below_a_folder_that_cannot_be_read(archive):
    for place in ("a", "a/b", "c", "d"):
        archive.add(place)
    archive.ingested()
    hidden = archive.source / "a"
    for gone in ("a", "c"):
        shutil.rmtree(archive.source / gone)
    hidden.symlink_to("/nowhere")
    report = archive.ingested(erase_missing=True)
    assert (report.records, report.records_without_file, report.records_out_of_sight) == (3, 2, 2)
    hidden.unlink()
    again = archive.ingested(erase_missing=True)
    assert (again.records, again.records_out_of_sight) == (1, 0)


def test_records_of_an_older_cache_are_read_and_learn_who_they_are_about(archive, secret, monkeypatch):
    """The former form: rows without what tells persons apart, files without folders, the former kind of fingerprint."""
    archive.add()
    archive.add(IssuerOfPatientID="HOSP")
    with monkeypatch.context() as former:
        former.setattr(record, "STORED", record._FIRST)
        former.setattr(segments, "SCHEMA", 1)
        former.setattr("client.dicom.store.Store.fingerprint", lambda _store, found: "0" * 32)
        archive.ingested()
    assert archive.persons() == [1, 1], "until files are read again"
    assert archive.ingested().files_read == 2
    assert archive.persons() == [2]


def test_no_trait_of_a_person_can_be_compared_between_identifiers():
    first, second = identities(
        header("A", PatientBirthDate="19700101", PatientSex="F"),
        header("B", PatientBirthDate="19700101", PatientSex="F"),
    )
    traits = [{identity.birth_year_key, identity.sex_key} for identity in (first, second)]
    assert not traits[0] & traits[1]
