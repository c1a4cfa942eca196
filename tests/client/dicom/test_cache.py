"""The cache at rest: only ciphertext and counts, every changed or moved byte noticed, nothing else allowed in."""

import json
import re
import shutil
from dataclasses import asdict, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.dicom.cache import Cache
from client.dicom.errors import CacheInvalidError
from client.dicom.facts import FACT_NAMES, KEY, Facts, checked
from client.dicom.ingest import ingest
from client.dicom.record import RecordInfo
from client.dicom.reject import Rejected
from client.dicom.segments import committed, index_path, shard_path
from client.dicom.vault import OVERHEAD_BYTES, Vault

ALLOWED = {
    "patient_key",
    "patient_id_key",
    "issuer_key",
    "other_id_keys",
    "likeness_key",
    "birth_year_key",
    "sex_key",
    "doubts",
    "accession_key",
    "study_key",
    "series_key",
    "instance_key",
    "modality",
    "maker",
    "laterality",
    "view",
    "frame_index",
    "slices",
    "intensity_low",
    "intensity_high",
    "spacing_mm",
}
PLACE = {"record_id", "shape", "content_digest", "segment", "offset", "length", "label_length"}
DERIVED = {"identity_key", "label", "split", "stratum"}

GOOD = Facts(
    patient_key="0" * 32,
    patient_id_key="1" * 32,
    accession_key="",
    study_key="2" * 32,
    series_key="3" * 32,
    instance_key="4" * 32,
    modality="CT",
    maker="GE",
    laterality="L",
    view="",
)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory, scan, settings_with, secret):
    """A cache with one segment of six records."""
    tmp_path = tmp_path_factory.mktemp("cache")
    (tmp_path / "scans").mkdir()
    for number in range(6):
        content = scan(patient=f"WANG{number}", number=number, accession="ACC77", patient_name="Wang^Xiaodong")
        (tmp_path / "scans" / f"Wang Xiaodong {number}.dcm").write_bytes(content)
    ingest(tmp_path / "scans", tmp_path / "cache", settings=settings_with(), secret=secret)
    return tmp_path / "cache"


@pytest.fixture
def filled(ingested, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(ingested, tmp_path / "cache")


def test_only_the_allow_list_is_known_about_a_record():
    assert set(FACT_NAMES) == ALLOWED
    assert {field.name for field in fields(RecordInfo)} == ALLOWED | PLACE | DERIVED


def test_good_facts_pass_the_parents_check_unchanged():
    assert checked(asdict(GOOD)) == GOOD


@given(st.sampled_from(FACT_NAMES), st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.binary()))
def test_a_worker_cannot_deliver_anything_but_keys_numbers_and_known_words(name, value):
    try:
        facts = checked(asdict(GOOD) | {name: value})
    except Rejected:
        return
    kept = getattr(facts, name)
    texts = [text for text in (kept if isinstance(kept, tuple) else [kept]) if isinstance(text, str) and text]
    assert all(KEY.fullmatch(text) or re.fullmatch(r"[A-Z ]{1,15}", text) for text in texts)


@pytest.mark.parametrize("extra", [{"patient_name": "Wang"}, {"study_date": "20240102"}])
def test_a_worker_cannot_add_a_fact(extra):
    with pytest.raises(Rejected):
        checked(asdict(GOOD) | extra)


def test_nobody_else_can_read_the_folder(filled):
    assert filled.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in filled.rglob("*") if path.is_file()} == {0}


def test_the_readable_header_says_nothing_about_patients(filled):
    assert set(json.loads((filled / "cache.json").read_text())) == {"format", "cache_id", "key_check", "settings"}


def test_no_identifier_lies_in_any_file_or_name(filled):
    everything = b"".join(path.read_bytes() + str(path).encode() for path in filled.rglob("*") if path.is_file())
    assert not [word for word in (b"WANG", b"Wang", b"ACC77", b"20240102", b"2.25.") if word in everything]


def test_ciphertext_does_not_compress_and_repeats_nothing(filled):
    shard = shard_path(filled / "segments", 1).read_bytes()
    blocks = [shard[i : i + 16] for i in range(0, len(shard) - 16, 16)]
    assert len(set(blocks)) == len(blocks)


def test_every_flipped_byte_of_a_record_is_noticed(filled, secret):
    path = shard_path(filled / "segments", 1)
    good = path.read_bytes()
    record = min(Cache.open(filled, secret).records, key=lambda r: r.offset)
    for place in (0, 11, 12, 500, record.length - 1):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(CacheInvalidError, match="changed or cut"):
            Cache.open(filled, secret).read(record.record_id)


def test_records_cannot_change_places(filled, secret):
    path = shard_path(filled / "segments", 1)
    first, second = sorted(Cache.open(filled, secret).records, key=lambda r: r.offset)[:2]
    content = path.read_bytes()
    a, b = (content[r.offset : r.offset + r.length] for r in (first, second))
    path.write_bytes(b + a + content[first.length + second.length :])
    with pytest.raises(CacheInvalidError):
        Cache.open(filled, secret).read(first.record_id)


def test_a_cut_or_missing_shard_and_a_changed_index_are_noticed(filled, secret):
    (number,) = committed(filled / "segments")
    cache = Cache.open(filled, secret)
    last = max(cache.records, key=lambda r: r.offset)
    shard = shard_path(filled / "segments", number)
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CacheInvalidError):
        cache.read(last.record_id)
    shard.unlink()
    with pytest.raises(CacheInvalidError, match="missing"):
        Cache.open(filled, secret).read(last.record_id)
    index = index_path(filled / "segments", number)
    index.write_bytes(index.read_bytes()[:-1] + b"?")
    with pytest.raises(CacheInvalidError):
        Cache.open(filled, secret)


def test_a_sealed_blob_opens_only_under_its_kind_name_key_and_cache():
    vault = Vault(b"s" * 32, b"i" * 16, b"d" * 32)
    sealed = vault.seal("levels", "1/a", b"pixels")
    assert vault.open("levels", "1/a", sealed) == b"pixels"
    others = {
        "another kind": (vault, "label map", "1/a"),
        "another name": (vault, "levels", "1/b"),
        "another secret": (Vault(b"t" * 32, b"i" * 16, b"d" * 32), "levels", "1/a"),
        "another cache": (Vault(b"s" * 32, b"j" * 16, b"d" * 32), "levels", "1/a"),
        "other settings": (Vault(b"s" * 32, b"i" * 16, b"e" * 32), "levels", "1/a"),
    }
    for other, kind, name in others.values():
        with pytest.raises(CacheInvalidError):
            other.open(kind, name, sealed)
    assert len(sealed) == len(b"pixels") + OVERHEAD_BYTES
    assert vault.seal("levels", "1/a", b"pixels") != sealed, "a fresh nonce each time"


def test_every_level_comes_back_as_its_fraction(filled, secret):
    cache = Cache.open(filled, secret)
    record_id = cache.records[0].record_id
    levels = cache.read_levels(record_id)
    assert np.array_equal(cache.read(record_id), (levels / 65535).astype(np.float32))
    assert float(np.divide(np.uint16(65535), np.float32(65535), dtype=np.float32)) == 1.0


def test_patients_group_their_records(filled, secret):
    cache = Cache.open(filled, secret)
    grouped = cache.patients()
    assert sorted(record.record_id for records in grouped.values() for record in records) == [
        record.record_id for record in cache.records
    ]
    assert all(record.patient_key == key for key, records in grouped.items() for record in records)
    assert len(cache) == len(grouped) == 6
