import tomllib

import numpy as np
import pytest
import torch

from client.dicom.record import Stratum
from client.learning.patients import ArrayPatients
from common.networks.parameters import flatten, layout
from common.plan.guarantee import labelled_events, unlabelled_events
from common.plan.phases import Method
from common.privacy.accounting import epsilon
from simulation.report.facts import Role
from simulation.study.comparisons import Task, tasks, variant
from simulation.study.plain_training import RememberedPatients, UnitedPatients, train_in_the_clear
from simulation.study.plan_building import build_plan
from simulation.study.scenario import Comparisons
from simulation.study.scenario_reading import SHIPPED, parse_scenario

ALL = Comparisons(alone=True, supervised_only=True, without_privacy=True, pooled=True)


@pytest.fixture(scope="module")
def plan():
    document = tomllib.loads((SHIPPED / "demo.toml").read_text())
    document["study"]["phases"] = [
        {
            "name": "head",
            "rounds": 2,
            "method": "teacher_student",
            "trainable": "head",
            "labelled_sampling_rate": 1.0,
            "unlabelled_sampling_rate": 0.5,
            "confidence_threshold": 0.0,
        }
    ]
    document["study"]["secure_aggregation"]["coordinate_range"] = 16.0
    counts = {"hospital-1": (8, 8), "hospital-2": (8, 8), "hospital-3": (8, 8), "hospital-4": (0, 16)}
    return build_plan(parse_scenario(document, "demo"), counts, roster_digest="0" * 64, order_key="A" * 43 + "=")


def patients(seed, labelled=8, unlabelled=8):
    rng = np.random.default_rng(seed)
    count = labelled + unlabelled
    labels = np.where(np.arange(count) < labelled, rng.integers(0, 2, count), -1)
    return ArrayPatients(rng.random((count, 32, 32), np.float32), labels, [f"p{i}" for i in range(count)], dimensions=2)


@pytest.fixture(scope="module")
def hospitals():
    return {f"hospital-{n}": patients(n, *((8, 8) if n < 4 else (0, 16))) for n in range(1, 5)}


def test_who_can_train_alone_and_what_is_compared(plan):
    assert [task.key for task in tasks(plan, ALL)] == [
        "alone-hospital-1", "alone-hospital-2", "alone-hospital-3", "supervised", "no-noise", "pooled",
    ]  # fmt: skip
    assert tasks(plan, Comparisons()) == []


def test_a_hospital_alone_promises_its_patients_the_same(plan, hospitals):
    task = next(task for task in tasks(plan, ALL) if task.site == "hospital-2")
    alone, held = variant(plan, task, hospitals)
    assert list(held) == ["hospital-2"]
    assert [site.name for site in alone.sites] == ["hospital-2"]
    assert alone.secure_aggregation.honest_survivors == 1  # the whole noise, not a share of it
    for events in (labelled_events, unlabelled_events):
        assert epsilon(events(alone), 1e-4) == epsilon(events(plan), 1e-4)


def test_supervised_only_leaves_unlabelled_patients_out(plan, hospitals):
    changed, held = variant(plan, Task("supervised", "", Role.VARIANT, ""), hospitals)
    assert [phase.method for phase in changed.phases] == [Method.SUPERVISED]
    assert unlabelled_events(changed) == []
    assert labelled_events(changed) == labelled_events(plan)
    assert set(held) == set(hospitals)


def test_pooled_holds_every_patient_once(plan, hospitals):
    changed, held = variant(plan, Task("pooled", "", Role.CEILING, ""), hospitals)
    (everybody,) = held.values()
    assert len(everybody.keys(Stratum.LABELLED)) == 24 == changed.sites[0].labelled_patients
    assert len(set(everybody.keys(Stratum.UNLABELLED))) == 40 == changed.sites[0].unlabelled_patients
    key = everybody.keys(Stratum.LABELLED)[9]
    name, _, own = key.partition("/")
    assert torch.equal(everybody.read(key).images, hospitals[name].read(own).images)


def test_patients_in_memory_are_the_same_patients():
    source = patients(3)
    kept = RememberedPatients(source)
    for stratum in Stratum:
        assert kept.keys(stratum) == source.keys(stratum)
    assert torch.equal(kept.read("p5").images, source.read("p5").images)
    assert len(UnitedPatients({"a": source}).keys(Stratum.LABELLED)) == 8


def test_noise_moves_the_model_and_without_it_only_sampling_does(plan, hospitals):
    rounds = []
    models = [
        flatten(network, layout(network))
        for network in (
            train_in_the_clear(plan, hospitals, with_noise=False, progress=rounds.append),
            train_in_the_clear(plan, hospitals, with_noise=False),
            train_in_the_clear(plan, hospitals),
        )
    ]
    assert rounds == [1, 2]
    quiet = (models[0] - models[1]).norm()
    assert (models[0] - models[2]).norm() > 5 * quiet
    assert all(bool(torch.isfinite(model).all()) for model in models)
