"""What a patient's label maps add to the sum that becomes the prior."""

import numpy as np
import pytest
import torch

from client.dicom.record import Stratum
from client.learning.patients import UNKNOWN, ArrayPatients
from client.learning.training import PhaseTraining
from client.learning.training_settings import Method, Placement, Task, TrainingSettings
from common.networks.errors import NetworkUnsuitableError
from common.networks.registry import build_network

SIZE = (6, 8)


def training(patients, *, clipping_norm=100.0, prior=True):
    settings = TrainingSettings(
        task=Task.SEGMENTATION,
        classes=3,
        dimensions=2,
        method=Method.PRIOR,
        placement=Placement.DISTRIBUTED,
        trainable="prior" if prior else "all",
        labelled_sampling_rate=1.0,
        clipping_norm=clipping_norm,
        noise_multiplier=1.0,
        expected_batch=3.0,
    )
    size = SIZE if prior else ()
    network = build_network("unet", dimensions=2, classes=3, width=4, zero_head=False, prior_size=size)
    return PhaseTraining(network, patients, settings, input_shape=(1, *SIZE))


def label_maps_of(scans, seed=1):
    return np.random.default_rng(seed).integers(0, 3, (scans, *SIZE))


def test_the_sum_is_the_patients_masks_each_the_mean_of_its_labelled_scans():
    labels = label_maps_of(4)
    labels[3] = UNKNOWN
    owners = ["one", "two", "two", "two"]
    phase = training(
        ArrayPatients(np.random.default_rng(0).random((4, *SIZE), np.float32), labels, owners, dimensions=2)
    )
    found = phase.begin_round(1).vector.reshape(2, *SIZE)
    drawn = np.stack([labels == 1, labels == 2], axis=1).astype(np.float64)
    assert torch.allclose(found, torch.from_numpy(drawn[0] + drawn[1:3].mean(0)), atol=1e-4)


def test_a_patient_is_clipped_whatever_its_mask_and_unknown_voxels_add_nothing():
    labels = np.ones((1, *SIZE), np.int64)
    labels[0, 0] = UNKNOWN
    phase = training(ArrayPatients(np.zeros((1, *SIZE), np.float32), labels, ["one"], dimensions=2), clipping_norm=2.0)
    found = phase.begin_round(1).vector.reshape(2, *SIZE)
    assert float(found.norm()) == pytest.approx(2.0, abs=1e-3)
    assert float(found[0, 0].abs().max()) == 0
    assert float(found[1].abs().max()) == 0


def test_a_network_without_a_prior_is_refused():
    with pytest.raises(NetworkUnsuitableError, match=r"network\.prior = true"):
        training(ArrayPatients(np.zeros((1, *SIZE), np.float32), label_maps_of(1), ["one"], dimensions=2), prior=False)


def test_only_labelled_patients_take_part():
    labels = np.concatenate([label_maps_of(1), np.full((1, *SIZE), UNKNOWN)])
    patients = ArrayPatients(np.zeros((2, *SIZE), np.float32), labels, ["one", "two"], dimensions=2)
    assert patients.keys(Stratum.UNLABELLED) == ["two"]
    assert float(training(patients).begin_round(1).vector.sum()) == pytest.approx((labels[0] > 0).sum(), abs=1e-3)
