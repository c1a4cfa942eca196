"""What a ridge phase sums: second moments of unlabelled patients, products with labels of labelled ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from client.dicom.record import Stratum
from client.learning.patients import UNKNOWN, ArrayPatients
from client.learning.private_training import PrivateTraining
from client.learning.round_randomness import RoundRandomness
from client.learning.second_moments import SecondMoments, centred_labels
from client.learning.training_settings import Method, Placement, Task, TrainingSettings
from client.private_gradients.settings import SpeedSettings
from common.networks.errors import NetworkUnsuitableError
from common.networks.registry import build_network
from common.networks.ridge import INTERCEPT, moments_length, triangle_length
from common.plan.errors import PlanInvalidError

SIZE, FEATURES = 8, 28
RIDGE = TrainingSettings(
    task=Task.CLASSIFICATION,
    classes=2,
    dimensions=2,
    method=Method.RIDGE,
    trainable="head",
    labelled_sampling_rate=1.0,
    unlabelled_sampling_rate=1.0,
    unlabelled_clip_ratio=0.5,
    noise_multiplier=1.0,
)


class NoNoise:
    def integers(self, length, stddev):
        return np.zeros(length, np.int64)


def people(labelled=3, unlabelled=4, *, scans=2, seed=0):
    random = np.random.default_rng(seed)
    owners = [f"p{number}" for number in range(labelled + unlabelled) for _ in range(scans)]
    labels = np.full(len(owners), UNKNOWN)
    labels[: labelled * scans : scans] = random.integers(0, 2, labelled)  # the first scan of each labelled patient
    return ArrayPatients(random.random((len(owners), SIZE, SIZE)).astype(np.float32), labels, owners, dimensions=2)


def summed(patients, settings=RIDGE, *, engine="loop"):
    network = build_network("small_cnn", dimensions=2, classes=settings.classes, width=4, seed=2)
    noise = None if settings.placement is Placement.NONE else NoNoise()
    phase = PrivateTraining(network, patients, settings, noise=noise, speed=SpeedSettings(engine=engine))
    return phase, phase.train_round(1, randomness=RoundRandomness(bytes(32)))


def rows_of(network, images):
    with torch.no_grad():
        features = network.features(images).double().numpy()
    x = np.concatenate([features, np.full((len(features), 1), INTERCEPT)], axis=1)
    return x / np.maximum(1, np.linalg.norm(x, axis=1, keepdims=True))


@pytest.mark.parametrize("engine", ["loop", pytest.param("vmap", marks=pytest.mark.slow)])
def test_the_sum_is_the_moments_of_each_stratum(engine):
    patients = people()
    phase, update = summed(patients, engine=engine)
    triangle, cross = np.zeros((FEATURES + 1,) * 2), np.zeros((FEATURES + 1, 2))
    for key in patients.keys(Stratum.UNLABELLED):
        x = rows_of(phase.network, patients.read(key).images)
        triangle += x.T @ x / len(x)
    for key in patients.keys(Stratum.LABELLED):
        scans = patients.read(key)
        x, label = rows_of(phase.network, scans.images[:1]), int(scans.labels[0])
        cross += x.T @ (np.eye(2)[[label]] - 0.5) / np.sqrt(0.5)
    off = np.sqrt(2) - (np.sqrt(2) - 1) * np.eye(FEATURES + 1)
    expected = np.concatenate([0.5 * (triangle * off)[np.triu_indices(FEATURES + 1)], cross.ravel()])
    assert len(expected) == phase.sum_length == moments_length(FEATURES, 2)
    np.testing.assert_allclose(update.vector, expected, atol=3e-4)


@pytest.mark.parametrize(("labelled", "unlabelled", "bound"), [(1, 0, 1.0), (0, 1, 0.5), (3, 4, 5.0)])
def test_no_patient_adds_more_than_the_clip_of_the_stratum(labelled, unlabelled, bound):
    for seed in range(5):
        loud = people(labelled, unlabelled, seed=seed)
        loud._images = loud._images * 1e4
        _, update = summed(loud)
        assert 0 < np.linalg.norm(update.vector) <= bound * (1 + 1e-6)


def test_each_stratum_writes_to_its_own_part_of_the_sum():
    triangle = triangle_length(FEATURES)
    _, labelled = summed(people(3, 0))
    _, unlabelled = summed(people(0, 3))
    assert not labelled.values[:triangle].any()
    assert labelled.values[triangle:].any()
    assert unlabelled.values[:triangle].any()
    assert not unlabelled.values[triangle:].any()


@pytest.mark.parametrize("gone", ["p0", "p5"])
def test_one_patient_less_changes_the_sum_by_that_patient_alone(gone):
    patients, without = people(), people()
    for stratum in Stratum:
        without._strata[stratum] = [key for key in without._strata[stratum] if key != gone]
    alone = people()
    for stratum in Stratum:
        alone._strata[stratum] = [key for key in alone._strata[stratum] if key == gone]
    whole, rest, one = (summed(each)[1].values for each in (patients, without, alone))
    np.testing.assert_array_equal(whole, rest + one)


def test_a_scan_that_is_no_number_adds_nothing_and_spoils_nobody():
    patients = people(scans=1)
    patients._images[0] = torch.nan
    without = people(scans=1)
    without._strata[Stratum.LABELLED].remove("p0")
    np.testing.assert_array_equal(summed(patients)[1].values, summed(without)[1].values)


def test_labels_are_centred_and_of_norm_at_most_one():
    one = centred_labels(torch.tensor([2, 0, UNKNOWN]), 3)
    assert torch.allclose(one[0], torch.tensor([-1.0, -1.0, 2.0]) / 3 / (2 / 3) ** 0.5)
    assert torch.allclose(one.norm(dim=1), torch.tensor([1.0, 1.0, 0.0]))
    several = centred_labels(torch.tensor([[1, 0, 1], [UNKNOWN, 1, UNKNOWN], [UNKNOWN] * 3]), 3)
    assert torch.allclose(several.norm(dim=1), torch.tensor([1.0, 3**-0.5, 0.0]))


def test_ridge_needs_a_linear_head_on_normed_features():
    with pytest.raises(NetworkUnsuitableError, match="linear head"):
        SecondMoments(build_network("residual", dimensions=2, classes=2, width=4))


@pytest.mark.parametrize("change", [{"trainable": "all"}, {"placement": Placement.LOCAL}])
def test_settings_against_one_another_are_refused(change):
    with pytest.raises(PlanInvalidError, match="ridge"):
        replace(RIDGE, **change)
