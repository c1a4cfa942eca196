"""Features are computed once, behind the fence; each scan alone, each patient's views of the patient's own draws."""

import json
import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from client.__main__ import app
from client.consent.open_studies import OpenStudies
from client.dicom.cache import Cache
from client.features.counting import count_features
from client.features.encoder import Encoder, memory_of
from client.features.errors import FeaturesMissingError
from client.features.preparation import preparation_of
from client.features.store import FeatureStore
from client.learning.cached_patients import CachedPatients
from client.learning.speed import Speed
from client.trainer import feature_computing
from client.trainer.encoder_answers import answers
from client.trainer.feature_computing import compute_features
from client.trainer.feature_work import FeatureWork, preparation_randomness, views_of
from client.trainer.local_work import local_work
from client.trainer.remote_encoder import remote_features
from client.trainer.study_training import StudyTraining
from common.encoders.errors import EncoderInvalidError
from common.plan.reading import read_plan
from common.plan.shapes_here import shapes_here
from common.trust.identity import read_secret_file
from simulation.drawing.made_up_encoder import card_of, made_up_model


@pytest.fixture
def plan_file(hospital):
    return next(hospital.plans.glob("*/plan.toml"))


@pytest.fixture
def plan(plan_file):
    return read_plan(plan_file)


def opened(hospital, plan):
    secret = read_secret_file(hospital.secret)
    return Cache.open(hospital.cache, secret).frozen(plan.digest()), FeatureStore(
        hospital.features, secret, preparation_of(plan)
    )


def test_the_fenced_child_computes_what_is_missing_once_and_the_features_are_those_of_the_encoder(
    hospital, plan, large_encoder
):
    told = []
    cache, store = opened(hospital, plan)
    assert compute_features(hospital, plan, lambda done, of: told.append((done, of))) == len(cache)
    assert told[-1] == (len(cache), len(cache))
    assert compute_features(hospital, plan, lambda *_: pytest.fail("computed again")) == 0
    encoder, record = Encoder(large_encoder.file, large_encoder.card), cache.records[2]
    image = torch.from_numpy(cache.read(record.record_id)).unsqueeze(0)
    randomness = preparation_randomness(read_secret_file(hospital.secret), preparation_of(plan))
    seen = views_of(image, record, 2, randomness)
    expected = np.concatenate([encoder.features(each.numpy(), ["levels"]) for each in seen])
    assert np.array_equal(store.read(record), expected)
    assert len({row.tobytes() for row in expected}) == 3, "a view is no copy of the scan"
    assert count_features(hospital, plan).scan_s > 0


def test_a_scans_features_are_the_same_bits_alone_and_beside_others_in_any_order(hospital, plan):
    work = FeatureWork(hospital, plan)
    together = {record.record_id: work.rows(record) for record in work.missing}
    again = FeatureWork(hospital, plan)
    for record in reversed(again.missing):
        assert np.array_equal(together[record.record_id], FeatureWork.rows(again, record))
    alone = FeatureWork(hospital, plan)
    assert np.array_equal(alone.rows(alone.missing[3]), together[alone.missing[3].record_id])


def test_training_reads_features_and_leaves_out_a_scan_that_has_none(hospital, plan):
    work = FeatureWork(hospital, plan)
    for number, record in enumerate(work.missing):
        work.store.put(record, None if number == 0 else work.rows(record))
    cache, store = opened(hospital, plan)
    patients = CachedPatients(cache, plan, store)
    gone = work.missing[0]
    for key, records in cache.patients().items():
        scans = patients.read(key).whole()
        assert scans.are_features
        assert scans.images.shape == (sum(record != gone for record in records), 3, 12)
    StudyTraining.open(hospital, plan, site_id="north")


@pytest.mark.slow
def test_work_that_was_stopped_goes_on_where_it_stopped(hospital, plan):
    work = FeatureWork(hospital, plan)
    for done in work.compute(work.missing):
        if done == 4:
            break
    kept = {path: path.stat().st_mtime_ns for path in work.store.folder.glob("*/*.sealed")}
    assert len(kept) == 4
    assert compute_features(hospital, plan) == len(work.missing) - 4
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
def test_a_scan_that_ends_the_process_twice_is_given_up_and_stops_nobody(hospital, plan, monkeypatch):
    """The first scan ends the child whenever it is reached."""
    program = (
        "import os, sys; from client.trainer import feature_work as work\n"
        "first, rows = [], work.FeatureWork.rows\n"
        "def crashing(self, record):\n"
        "    first.append(record)\n"
        "    if record.record_id == min(r.record_id for r in self._cache.records): os._exit(9)\n"
        "    return rows(self, record)\n"
        "work.FeatureWork.rows = crashing; work.main()"
    )
    monkeypatch.setattr(feature_computing, "PROGRAM", ("-c", program))
    compute_features(hospital, plan)
    cache, store = opened(hospital, plan)
    assert store.missing(cache.records) == []
    assert [store.read(record) is None for record in cache.records] == [True] + [False] * (len(cache) - 1)


def test_a_process_that_never_begins_is_one_sentence_and_gives_no_scan_up(hospital, plan, monkeypatch):
    monkeypatch.setattr(feature_computing, "PROGRAM", ("-c", "raise SystemExit(3)"))
    with pytest.raises(feature_computing.TrainerFailedError, match="before the first scan"):
        compute_features(hospital, plan)
    assert count_features(hospital, plan).missing == count_features(hospital, plan).scans


def test_an_encoder_that_never_is_ready_is_ended_with_a_sentence(hospital, plan, monkeypatch):
    monkeypatch.setattr(feature_computing, "PROGRAM", ("-c", "import time; time.sleep(60)"))
    monkeypatch.setattr(feature_computing, "READY_S", 0.5)
    with pytest.raises(EncoderInvalidError, match="was not loaded and tried on a made-up image"):
        compute_features(hospital, plan)


def test_an_image_on_which_the_encoder_fails_leaves_out_no_other(tmp_path):
    """A table is looked up at a place that only bright images reach outside of it."""
    model = made_up_model((1, 16, 16))
    model.graph.node[-1].output[0] = "means"
    for name, value in {"one": np.float32(1), "many": np.float32(50), "table": np.zeros(50, np.float32)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMin", ["image"], ["darkest"], keepdims=0),
            helper.make_node("Add", ["darkest", "one"], ["above"]),  # the card maps black to -1
            helper.make_node("Mul", ["above", "many"], ["far"]),
            helper.make_node("Cast", ["far"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "place"], ["found"]),
            helper.make_node("Add", ["means", "found"], ["levels"]),
        ]
    )
    (tmp_path / "encoder.onnx").write_bytes(model.SerializeToString())
    encoder = Encoder(tmp_path / "encoder.onnx", card_of(model.SerializeToString()))
    images = np.stack([np.full((1, 16, 16), grey, np.float32) for grey in (0.1, 0.9, 0.2)])
    rows, places = answers(encoder, images, ["levels"])
    assert (places, len(rows)) == ([0, 2], 2)


def test_the_process_that_answers_for_new_scans_may_take_no_more_than_the_encoder_is_allowed(
    hospital, plan, large_encoder
):
    with remote_features(hospital, plan) as features:
        features(torch.rand(1, 1, 32, 32))
        (child,) = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read_text().split()[-1:]
        most = resource.prlimit(int(child), resource.RLIMIT_AS)[0]
    assert memory_of(large_encoder.card) <= most < memory_of(large_encoder.card) + (4 << 30), (
        "beside what it has itself"
    )


def test_without_the_encoder_nothing_is_approved_or_computed(hospital, plan):
    hospital.encoder(plan.network.encoder.file).unlink()
    with pytest.raises(EncoderInvalidError, match="encoder add"):
        compute_features(hospital, plan)


@pytest.mark.slow
def test_approving_computes_and_approving_again_computes_nothing(hospital, plan, plan_file):
    counts = []
    for _ in range(2):
        asked = [
            "approve",
            str(plan_file),
            "--site-folder",
            str(hospital.path),
            "--approver",
            "Dr A",
            "--yes",
            "--json",
        ]
        found = CliRunner().invoke(app, asked, catch_exceptions=False)
        counts.append(json.loads(found.stdout)["features_computed"])
    assert counts == [count_features(hospital, plan).scans, 0]


def test_an_order_that_comes_before_the_features_is_refused_and_costs_nothing(hospital):
    study, *_ = OpenStudies(hospital, shapes_here).current().values()
    before = hospital.ledger.read_bytes()
    with pytest.raises(FeaturesMissingError, match="not computed yet"):
        local_work(hospital, study, Speed())
    assert hospital.ledger.read_bytes() == before


def test_new_scans_get_the_encoders_features_from_a_fenced_process_which_keeps_nothing(hospital, plan, large_encoder):
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with remote_features(hospital, plan) as features:
        found = features(images)
        assert torch.equal(features(images[1:2]), found[1:2])
    expected = Encoder(large_encoder.file, large_encoder.card).features(images.numpy(), ["levels"])
    assert np.array_equal(found.numpy(), expected)
    assert not list(hospital.features.rglob("*.sealed"))


def test_without_the_encoder_new_scans_are_refused_with_a_sentence(hospital, plan):
    hospital.encoder(plan.network.encoder.file).unlink()
    with pytest.raises(EncoderInvalidError, match="encoder add"), remote_features(hospital, plan):
        pass
