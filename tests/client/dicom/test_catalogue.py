"""The catalogue of a cache: opening reads no record, and what does not fit the cache is made anew, never trusted."""

import logging
import shutil

import pytest

from client.dicom import segments
from client.dicom.cache import Cache, refresh_catalogues
from client.dicom.cache_folder import open_folder, open_or_create
from client.dicom.catalogue import LENGTH_BYTES, MAGIC, ROWS
from client.dicom.errors import CacheInvalidError
from client.dicom.label_table import UNLABELLED, LabelTable
from client.dicom.record import RecordInfo, Stratum
from client.dicom.segments import SegmentWriter
from client.dicom.withdrawals import withdraw

STUDY = "5" * 64
PATIENTS, SCANS = 40, 4  # more records than two blocks hold


def key(kind, number):
    """A keyed name, as pseudonyms make them."""
    return f"{kind}{number:031x}"


def record_of(patient, scan, place, shape):
    segment, offset, length = place
    return RecordInfo(
        patient_key=key("a", patient),
        patient_id_key=key("b", patient),
        issuer_key="",
        likeness_key=key("c", patient),
        accession_key="",
        study_key=key("d", patient),
        series_key=key("e", patient),
        instance_key=key("f", patient * SCANS + scan),
        modality="CT",
        maker="GE",
        laterality="L",
        view="",
        record_id=key("0", (7 * (patient * SCANS + scan)) % 997),  # the order of identifiers is not that of patients
        shape=shape,
        content_digest=bytes([patient, scan]) * 8,
        segment=segment,
        offset=offset,
        length=length,
    )


def add(folder, patients):
    """Commit one segment."""
    writer = SegmentWriter(folder.segments, folder.vault)
    shape = folder.settings.record_shape
    for patient in patients:
        for scan in range(SCANS):
            found = record_of(patient, scan, (0, 0, 0), shape)
            place = writer.place("levels", found.record_id, bytes([patient]) * (2 * shape[0] * shape[1]))
            writer.note_record(record_of(patient, scan, place, shape))
    writer.commit()


@pytest.fixture(scope="module")
def made(tmp_path_factory, settings_with, secret):
    """A cache of two segments, every fifth patient labelled, without any catalogue: as the version before wrote it."""
    path = tmp_path_factory.mktemp("catalogue") / "cache"
    folder = open_or_create(path, secret, settings_with(size_px=(8, 8)))
    add(folder, range(PATIENTS // 2))
    add(folder, range(PATIENTS // 2, PATIENTS))
    LabelTable({key("b", patient): patient % 2 for patient in range(0, PATIENTS, 5)}).save(path, folder.vault)
    return path


@pytest.fixture
def cache(made, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(made, tmp_path / "cache")


def contents(opened):
    """All that a view says."""
    return list(opened.records), dict(opened.patients()), dict(opened.doubts)


@pytest.fixture
def unread(monkeypatch):
    """Index parts cannot be read from here on."""

    def refuse(*_):
        raise AssertionError("an index part was read")

    return lambda: monkeypatch.setattr(segments, "read_part", refuse)


def test_a_cache_of_the_version_before_opens_and_has_a_catalogue_then(cache, secret, unread):
    first = contents(Cache.open(cache, secret))
    unread()
    assert contents(Cache.open(cache, secret)) == first
    assert len(first[0]) == PATIENTS * SCANS > 2 * ROWS


def test_records_stand_in_the_order_of_identifiers_and_patients_in_that_of_keys(cache, secret):
    opened = Cache.open(cache, secret)
    assert [r.record_id for r in opened.records] == sorted(r.record_id for r in opened.records)
    assert opened.records[3] == list(opened.records)[3] == opened[opened.records[3].record_id]
    assert opened.records[::50] == list(opened.records)[::50]
    assert list(opened.patients()) == sorted(opened.patients())
    assert [(p.key, p.records) for p in opened.people()] == [(k, len(rs)) for k, rs in opened.patients().items()]
    labelled = {p.key for p in opened.people() if p.stratum is Stratum.LABELLED}
    assert labelled == {key("a", patient) for patient in range(0, PATIENTS, 5)}


@pytest.mark.parametrize("known", ["records", STUDY])
def test_asking_for_somebody_who_is_not_there_is_a_key_error(cache, secret, known):
    opened = Cache.open(cache, secret)
    opened = opened.freeze(STUDY) if known == STUDY else opened
    for strange in ("", "zz", key("a", PATIENTS), key("0", 998)):
        with pytest.raises(KeyError):
            opened.patients()[strange]
        with pytest.raises(KeyError):
            opened.read(strange)


CHANGES = {
    "new records": lambda folder: add(folder, [PATIENTS + 1]),
    "other labels": lambda folder: LabelTable({key("b", 1): 0, key("b", 0): UNLABELLED}).save(
        folder.path, folder.vault
    ),
    "an opt-out": lambda folder: withdraw(folder, key("a", 3)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_catalogue_from_before_a_change_is_made_anew(cache, secret, change):
    before = contents(Cache.open(cache, secret))
    old = (cache / "catalogues" / "records.sealed").read_bytes()
    CHANGES[change](open_folder(cache, secret))
    (cache / "catalogues" / "records.sealed").write_bytes(old)
    after = contents(Cache.open(cache, secret))
    assert after != before
    shutil.rmtree(cache / "catalogues")
    assert contents(Cache.open(cache, secret)) == after


def flipped(place):
    return lambda content: content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = {
    "empty": lambda _: b"",
    "no catalogue": lambda _: b"x" * 4096,
    "cut in the head": lambda content: content[:200],
    "cut by a byte": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "another length": flipped(len(MAGIC) + LENGTH_BYTES - 1),
    "a huge length": flipped(len(MAGIC)),
    "a bit of the head": flipped(len(MAGIC) + LENGTH_BYTES + 40),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_catalogue_is_made_anew_with_a_sentence(cache, secret, damage, caplog):
    expected = contents(Cache.open(cache, secret))
    path = cache / "catalogues" / "records.sealed"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert contents(Cache.open(cache, secret)) == expected
    assert "made anew" in caplog.text
    caplog.clear()
    assert contents(Cache.open(cache, secret)) == expected
    assert not caplog.text


def test_a_damaged_block_is_noticed_when_it_is_opened(cache, secret, caplog):
    expected = contents(Cache.open(cache, secret))
    path = cache / "catalogues" / "records.sealed"
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    assert contents(Cache.open(cache, secret)) == expected
    assert "made anew" in caplog.text


def test_blocks_and_catalogues_cannot_change_places(cache, secret):
    opened = Cache.open(cache, secret)
    expected, frozen = contents(opened), contents(opened.freeze(STUDY))
    records, study = (cache / "catalogues" / f"{name}.sealed" for name in ("records", STUDY))
    a, b = records.read_bytes(), study.read_bytes()
    records.write_bytes(b)
    study.write_bytes(a)
    assert contents(Cache.open(cache, secret)) == expected
    assert contents(Cache.open(cache, secret).frozen(STUDY)) == frozen


def test_a_changed_index_part_is_not_hidden_by_the_catalogue(cache, secret):
    Cache.open(cache, secret)
    path = segments.index_path(cache / "segments", 1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CacheInvalidError):
        Cache.open(cache, secret)


def test_a_frozen_study_keeps_its_patients_and_who_opted_out_has_no_records(cache, secret, unread):
    Cache.open(cache, secret).freeze(STUDY)
    folder = open_folder(cache, secret)
    withdraw(folder, key("a", 3))
    add(folder, [PATIENTS + 1])
    refresh_catalogues(folder)
    unread()
    frozen = Cache.open(cache, secret).frozen(STUDY)
    assert len(frozen.patients()) == PATIENTS
    assert frozen.patients()[key("a", 3)] == []
    assert {p.key for p in frozen.people() if p.records == 0} == {key("a", 3)}
    assert key("a", PATIENTS + 1) not in frozen.patients()
    assert key("a", 3) not in Cache.open(cache, secret).patients()


def test_an_erased_record_leaves_the_catalogues_too(cache, secret):
    Cache.open(cache, secret).freeze(STUDY)
    withdraw(open_folder(cache, secret), key("a", 3))
    assert list((cache / "catalogues").iterdir()) == []


def test_a_cache_that_may_not_be_written_opens_all_the_same(cache, secret):
    (cache / "catalogues").write_bytes(b"")  # a file where the folder would be
    assert len(Cache.open(cache, secret)) == PATIENTS * SCANS


def test_nothing_readable_lies_in_a_catalogue(cache, secret):
    opened = Cache.open(cache, secret)
    opened.freeze(STUDY)
    for path in (cache / "catalogues").iterdir():
        content = path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
        assert not [r for r in opened.records if r.patient_key.encode() in content or r.record_id.encode() in content]


def test_an_empty_cache_has_a_catalogue(tmp_path, secret, settings_with):
    open_or_create(tmp_path / "cache", secret, settings_with())
    for _ in range(2):
        opened = Cache.open(tmp_path / "cache", secret)
        assert contents(opened) == ([], {}, {})
