"""A study's patients from the encrypted cache: each in exactly one place, and held-out ones never train."""

import re
import weakref

import numpy as np
import pytest
import torch

from client.dicom.cache import Cache
from client.dicom.errors import CacheInvalidError
from client.dicom.record import Split, Stratum
from client.final_model.scoring import SCANS_AT_ONCE, score
from client.installation.folder import SiteFolder
from client.learning.cached_patients import CachedPatients
from client.learning.evaluation import count_patients
from client.learning.patients import UNKNOWN
from client.learning.training import PhaseTraining
from client.learning.training_settings import Task, TrainingSettings
from client.private_gradients.settings import SpeedSettings
from common.networks.registry import build_network
from common.plan.schedule import count_layout
from common.plan.task import Intensity, Modality, TaskKind
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


def test_a_part_of_a_scan_as_it_lies_has_the_bits_of_the_same_part_of_the_whole(cache, study, monkeypatch):
    patients = CachedPatients(cache, study.plan)
    key, records = max(cache.patients().items(), key=lambda item: len(item[1]))
    whole = patients.read(key)
    for index in range(len(records)):
        scan = whole.as_it_lies(index)
        assert scan.levels.dtype == np.uint16
        assert torch.equal(scan.image_part((3, 7), (16, 8)), whole.images[index][:, 3:19, 7:15])
    monkeypatch.setattr(cache, "read_levels", lambda _: (_ for _ in ()).throw(CacheInvalidError("a damaged scan")))
    assert whole.as_it_lies(0) is None


def changed(plan, part, **values):
    return plan.model_copy(update={part: getattr(plan, part).model_copy(update=values)})


# what a plan may differ in from the plan that the cache was made for -> how the refusal names it
OTHER_PLANS = {
    "a class more": (("task", {"classes": ("normal", "tuberculosis", "other")}), "classes is"),
    "classes in another order": (("task", {"classes": None}), "classes is"),
    "another kind of task": (("task", {"kind": TaskKind.MULTI_LABEL}), "kind is"),
    "another modality": (("task", {"modalities": (Modality.MG,)}), "modalities is"),
    "another size": (("image", {"size_px": (64, 64)}), "size_px is (32, 32), not (64, 64)"),
    "a spacing": (("image", {"spacing_mm": (2.0, 2.0)}), "spacing_mm is"),
    "another window": (("image", {"intensity": Intensity.CT_WINDOW, "window_hu": (40.0, 400.0)}), "window_hu is"),
    "other percentiles": (("image", {"percentiles": (5.0, 95.0)}), "percentiles is"),
}


@pytest.mark.parametrize(("change", "named"), OTHER_PLANS.values(), ids=OTHER_PLANS)
def test_a_cache_made_for_another_plan_is_refused_with_what_differs(cache, study, change, named):
    part, values = change
    if values == {"classes": None}:
        values = {"classes": study.plan.task.classes[::-1]}
    with pytest.raises(CacheInvalidError, match=re.escape(named)) as refused:
        CachedPatients(cache, changed(study.plan, part, **values))
    assert "fedward-site ingest" in str(refused.value)


MANY, K = 1000, 2


@pytest.fixture
def crowded(cache, study, monkeypatch):
    """A patient with a thousand scans, and how many images were read and lay in memory together at most."""
    plan = changed(study.plan, "image", maximum_scans_per_patient=K)
    patients = CachedPatients(cache, plan)
    key = patients.held_out()[0]
    [record, *_] = cache.patients()[key]
    patients._records = {key: [record] * MANY}
    patients._training = {Stratum.LABELLED: [key], Stratum.UNLABELLED: []}
    read, alive, seen = cache.read, [0], {"read": 0, "together": 0}

    class Image(np.ndarray):
        """An array that can be watched."""

    def gone():
        alive[0] -= 1

    def counted(record_id):
        image = read(record_id).view(Image)
        alive[0] += 1
        weakref.finalize(image, gone)
        seen["read"] += 1
        seen["together"] = max(seen["together"], alive[0])
        return image

    monkeypatch.setattr(cache, "read", counted)
    return plan, patients, key, seen


def network_of(plan):
    return build_network("small_cnn", dimensions=2, classes=len(plan.task.classes), width=4, zero_head=False, seed=1)


def test_of_a_patient_with_a_thousand_scans_training_reads_those_that_it_uses(crowded):
    plan, patients, _, seen = crowded
    chosen = TrainingSettings(
        task=Task.CLASSIFICATION, classes=2, dimensions=2, labelled_sampling_rate=1.0, noise_multiplier=1.0,
        most_scans=K,
    )  # fmt: skip
    training = PhaseTraining(network_of(plan), patients, chosen, speed=SpeedSettings(engine="loop"))
    assert training.begin_round(1).values.any()
    assert seen["read"] == seen["together"] == K


def test_a_patient_with_a_thousand_scans_is_scored_in_blocks_and_counts_as_one(crowded):
    plan, patients, key, seen = crowded
    layout, network = count_layout(plan), network_of(plan)
    total = count_patients(network, [patients.read(key)], layout, scans_at_once=K)
    assert seen["read"] == MANY
    assert seen["together"] <= 2 * K, "one block beside the next"
    one = patients.read(key).chosen(torch.tensor([0]))
    assert np.array_equal(total, count_patients(network, [one], layout))


def test_the_hospitals_own_figures_are_scored_in_blocks_as_well(crowded):
    plan, patients, key, seen = crowded
    score(network_of(plan), plan.task, map(patients.read, [key]))
    assert seen["read"] == MANY
    assert seen["together"] <= 2 * SCANS_AT_ONCE
