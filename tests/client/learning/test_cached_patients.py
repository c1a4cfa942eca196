"""A study's patients from the encrypted cache: each in exactly one place, and held-out ones never train."""

import pytest
import torch

from client.dicom.cache import Cache
from client.dicom.errors import CacheInvalidError
from client.dicom.record import Split, Stratum
from client.installation.folder import SiteFolder
from client.learning.cached_patients import CachedPatients
from client.learning.patients import UNKNOWN
from common.trust.identity import read_secret_file


@pytest.fixture
def cache(copied, study):
    folder = SiteFolder(copied / "north")
    return Cache.open(folder.cache, read_secret_file(folder.secret)).frozen(study.plan.digest())


def split_of(records):
    return records[0].stratum, records[0].split


def test_every_patient_is_in_exactly_one_place(cache, study):
    patients = CachedPatients(cache, study.plan)
    places = [*patients.keys(Stratum.LABELLED), *patients.keys(Stratum.UNLABELLED), *patients.held_out()]
    assert sorted(places) == sorted(cache.patients())
    assert len(set(places)) == len(places) == 12


def test_labelled_patients_that_the_split_holds_out_never_train_and_nobody_else_is_held_out(cache, study):
    patients = CachedPatients(cache, study.plan)
    kinds = {key: split_of(records) for key, records in cache.patients().items()}
    held_out = {key for key, kind in kinds.items() if kind == (Stratum.LABELLED, Split.VALIDATION)}
    assert held_out, "or nothing would be shown"
    assert set(patients.held_out()) == held_out
    for stratum in Stratum:
        expected = {key for key, (found, _) in kinds.items() if found is stratum} - held_out
        assert set(patients.keys(stratum)) == expected != set()


def test_labels_are_in_the_labelled_stratum_only(cache, study):
    patients = CachedPatients(cache, study.plan)
    for key in (*patients.keys(Stratum.LABELLED), *patients.held_out()):
        assert bool(patients.read(key).labelled.any())
    for key in patients.keys(Stratum.UNLABELLED):
        assert bool((patients.read(key).labels == UNKNOWN).all())


def test_a_plan_that_scores_nothing_trains_on_everybody(cache, study):
    plan = study.plan.model_copy(update={"evaluation": study.plan.evaluation.model_copy(update={"held_out": False})})
    patients = CachedPatients(cache, plan)
    assert patients.held_out() == []
    assert sum(len(patients.keys(stratum)) for stratum in Stratum) == len(cache.patients())


def test_a_patient_is_read_with_all_scans_and_labels_and_a_scan_that_cannot_be_decrypted_is_left_out(
    cache, study, monkeypatch
):
    patients = CachedPatients(cache, study.plan)
    key, records = max(cache.patients().items(), key=lambda item: len(item[1]))
    whole = patients.read(key)
    assert len(whole.images) == len(whole.labels) == len(records)
    assert torch.equal(whole.images[0, 0], torch.from_numpy(cache.read(records[0].record_id)))
    read, broken = cache.read, records[0].record_id

    def damaged(record_id):
        if record_id == broken:
            raise CacheInvalidError("a damaged scan")
        return read(record_id)

    monkeypatch.setattr(cache, "read", damaged)
    assert len(patients.read(key).images) == len(records) - 1


def test_a_cache_for_other_images_is_refused(cache, study):
    plan = study.plan.model_copy(update={"image": study.plan.image.model_copy(update={"size_px": (64, 64)})})
    with pytest.raises(CacheInvalidError, match="another task or image size"):
        CachedPatients(cache, plan)
