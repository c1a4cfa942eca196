"""A record that training cannot work with adds nothing, and nothing of it is in what others add: nobody sees it."""

import numpy as np
import pytest
import torch

from client.errors import TrainerFailedError
from client.learning.patients import ArrayPatients, PatientScans
from client.learning.private_training import PrivateTraining
from client.learning.round_randomness import RoundRandomness
from client.learning.training_settings import Placement, Task, TrainingSettings
from client.private_gradients.clipping import LatticeSum
from client.private_gradients.settings import SpeedSettings
from common.networks.parameters import flatten
from common.networks.registry import build_network

SIZE, KEY, BAD = 8, bytes(32), "p4"


class NoNoise:
    def integers(self, length, stddev):
        return np.zeros(length, np.int64)


class People(ArrayPatients):
    """Nine patients, one of whom gives ``record`` (an exception is raised) when it is read."""

    def __init__(self, record):
        random = np.random.default_rng(0)
        images = random.random((9, SIZE, SIZE)).astype(np.float32)
        super().__init__(images, np.arange(9) % 2, [f"p{i}" for i in range(9)], dimensions=2)
        self._record = record

    def read(self, patient_key):
        if patient_key != BAD:
            return super().read(patient_key)
        if isinstance(self._record, Exception):
            raise self._record
        return self._record


def scans(images, labels):
    return PatientScans(images, torch.tensor(labels))


IMAGE = torch.rand(1, 1, SIZE, SIZE)
NOTHING = scans(torch.zeros(0, 1, SIZE, SIZE), [])
STRANGE = {
    "a class that the plan does not have": scans(IMAGE, [7]),
    "a class below every other": scans(IMAGE, [-9]),
    "another size": scans(torch.rand(1, 1, SIZE + 3, SIZE), [1]),
    "another number of dimensions": scans(torch.rand(1, 1, SIZE, SIZE, SIZE), [1]),
    "fewer labels than images": scans(torch.rand(3, 1, SIZE, SIZE), [1]),
    "several channels": scans(torch.rand(1, 3, SIZE, SIZE), [1]),
    "an exception with its name in it": KeyError("patient-0815"),
    "no memory": MemoryError(),
    "a number that is none": scans(IMAGE * float("nan"), [1]),
}


def trained(record, *, engine="loop", placement=Placement.DISTRIBUTED, patients_at_once=4):
    chosen = TrainingSettings(
        task=Task.CLASSIFICATION,
        classes=2,
        dimensions=2,
        labelled_sampling_rate=1.0,
        noise_multiplier=1.0,
        placement=placement,
        local_steps=2 if placement is Placement.LOCAL else 1,
    )
    network = build_network("small_cnn", dimensions=2, classes=2, width=4, zero_head=False, seed=2)
    phase = PrivateTraining(
        network,
        People(record),
        chosen,
        noise=NoNoise(),
        speed=SpeedSettings(engine=engine),
        patients_at_once=patients_at_once,
        input_shape=(1, SIZE, SIZE),
    )
    return phase.train_round(1, flatten(network, phase.order), randomness=RoundRandomness(KEY)).values


@pytest.mark.parametrize("engine", ["loop", "vmap", "book_keeping"])
@pytest.mark.parametrize("case", STRANGE)
def test_a_strange_record_is_an_empty_record_to_the_last_bit(case, engine, caplog):
    empty = trained(NOTHING, engine=engine)
    assert empty.any()
    assert np.array_equal(trained(STRANGE[case], engine=engine), empty)
    assert "0815" not in caplog.text


@pytest.mark.parametrize("case", ["a class that the plan does not have", "an exception with its name in it"])
@pytest.mark.parametrize("patients_at_once", [1, 16])
def test_with_local_steps_and_in_any_company_too(case, patients_at_once):
    how = {"placement": Placement.LOCAL, "patients_at_once": patients_at_once}
    assert np.array_equal(trained(STRANGE[case], **how), trained(NOTHING, **how))


def test_what_was_added_before_a_record_raised_is_not_in_the_sum_twice(monkeypatch):
    add = LatticeSum.add

    def late(self, gradients, *, clipping_norm):
        strange = bool(torch.isnan(gradients).any())
        add(self, gradients.nan_to_num(0.5), clipping_norm=clipping_norm)
        if strange:
            raise RuntimeError("after the gradient was added")

    empty = trained(NOTHING)
    monkeypatch.setattr(LatticeSum, "add", late)
    assert np.array_equal(trained(STRANGE["a number that is none"]), empty)


def test_what_raises_for_everybody_is_no_patients_and_fails_the_training(monkeypatch):
    def broken(self, gradients, *, clipping_norm):
        raise TrainerFailedError("a processor that does not repeat itself")

    monkeypatch.setattr(LatticeSum, "add", broken)
    with pytest.raises(TrainerFailedError):
        trained(NOTHING)
