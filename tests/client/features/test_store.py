"""Features beside the cache: sealed, named without a patient in the name, made again where they are cut."""

import shutil

import numpy as np
import pytest

from client.dicom.cache import Cache
from client.dicom.errors import CacheInvalidError
from client.dicom.withdrawals import withdraw
from client.features.counting import count_features, require_features
from client.features.errors import FeaturesMissingError
from client.features.leaving import forget_features
from client.features.preparation import preparation_of
from client.features.store import FeatureStore
from common.plan.reading import read_plan
from common.trust.identity import read_secret_file


@pytest.fixture
def plan(hospital):
    return read_plan(next(hospital.plans.glob("*/plan.toml")))


@pytest.fixture
def cache(hospital, plan):
    return Cache.open(hospital.cache, read_secret_file(hospital.secret)).frozen(plan.digest())


def store_of(hospital, plan):
    return FeatureStore(hospital.features, read_secret_file(hospital.secret), preparation_of(plan))


def made_up(seed):
    return np.random.default_rng(seed).random((3, 12), np.float32)


def fill(hospital, plan, cache):
    store = store_of(hospital, plan)
    for number, record in enumerate(cache.records):
        store.put(record, made_up(number))


def test_what_was_put_is_read_again_bit_for_bit_also_by_another_process(hospital, plan, cache):
    fill(hospital, plan, cache)
    store = store_of(hospital, plan)
    assert store.missing(cache.records) == []
    for _ in ("opened", "kept"):
        assert all(np.array_equal(store.read(record), made_up(n)) for n, record in enumerate(cache.records))


def test_a_scan_without_features_is_not_missing_and_reads_as_none(hospital, plan, cache):
    store_of(hospital, plan).put(cache.records[0], None)
    assert store_of(hospital, plan).read(cache.records[0]) is None
    assert cache.records[0] not in store_of(hospital, plan).missing(cache.records)


def test_nothing_of_a_record_is_in_a_name_or_a_file(hospital, plan, cache):
    fill(hospital, plan, cache)
    record = cache.records[0]
    names = [path.name for path in hospital.features.rglob("*")]
    content = b"".join(path.read_bytes() for path in hospital.features.rglob("*") if path.is_file())
    for secret in (record.record_id, record.patient_key, record.content_digest.hex()):
        assert not any(secret[:16] in name for name in names)
    assert made_up(0).tobytes() not in content
    assert {path.stat().st_mode & 0o077 for path in hospital.features.rglob("*")} == {0}


def test_a_cut_file_counts_as_missing_and_a_changed_or_moved_one_is_not_read(hospital, plan, cache):
    fill(hospital, plan, cache)
    store = store_of(hospital, plan)
    cut, changed, moved, other = (next(store.folder.rglob(f"{store.name_of(r)}*")) for r in cache.records[:4])
    cut.write_bytes(cut.read_bytes()[:-4])
    assert store.missing(cache.records) == [cache.records[0]]
    changed.write_bytes(changed.read_bytes()[:-1] + bytes([changed.read_bytes()[-1] ^ 1]))
    shutil.copyfile(other, moved)
    for record in cache.records[:3]:
        with pytest.raises(CacheInvalidError):
            store.read(record)


def test_another_preparation_or_secret_reads_nothing(hospital, plan, cache):
    fill(hospital, plan, cache)
    encoder = plan.network.encoder.model_copy(update={"views": 3})
    other = plan.model_copy(update={"network": plan.network.model_copy(update={"encoder": encoder})})
    assert len(store_of(hospital, other).missing(cache.records)) == len(cache.records)
    stranger = FeatureStore(hospital.features, bytes(32), preparation_of(plan))
    assert len(stranger.missing(cache.records)) == len(cache.records)


@pytest.mark.parametrize("rows", [made_up(0)[:2], made_up(0).astype(np.float64)])
def test_features_of_another_form_are_not_kept(hospital, plan, cache, rows):
    with pytest.raises(ValueError, match="features are"):
        store_of(hospital, plan).put(cache.records[0], rows)


def test_a_study_is_not_worked_on_before_all_its_features_are_here(hospital, plan, cache):
    with pytest.raises(FeaturesMissingError, match=f"{len(cache)} of {len(cache)} scans"):
        require_features(hospital, plan)
    fill(hospital, plan, cache)
    require_features(hospital, plan)
    assert count_features(hospital, plan).missing == 0


def test_features_leave_with_whoever_opts_out_and_with_nobody_else(hospital, plan, cache):
    fill(hospital, plan, cache)
    store = store_of(hospital, plan)
    gone = cache.records[0].patient_key
    (store.folder / "ab").mkdir(exist_ok=True)
    (store.folder / "ab" / ".half.partial").write_bytes(b"what a crash left")
    withdraw(cache._folder, gone)
    forget_features(hospital)
    left = {path.name.removesuffix(".sealed") for path in store.folder.glob("*/*")}
    assert left == {store.name_of(record) for record in cache.records if record.patient_key != gone}
    assert count_features(hospital, plan).missing == 0
