"""Evaluation at a site: counts of stated norm, noised on the lattice."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, roc_auc_score
from torch import nn

from client.learning.evaluation import count_patients
from client.learning.patients import UNKNOWN, PatientScans
from common.privacy.metrics import UNITS_PER_PATIENT, CountKind, CountLayout, area_under_curve, mean_dice


class FirstPixels(nn.Module):
    """Logits are the first pixels of the scan, so a test can write predictions into images."""

    def __init__(self, classes, *, voxels=False):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self._classes, self._voxels = classes, voxels

    def forward(self, images):
        if self._voxels:
            return torch.cat([1 - images, images], 1) * 20 - 10
        return images.flatten(1)[:, : self._classes]


def patient(logits, labels):
    logits = torch.as_tensor(logits, dtype=torch.float32)
    images = torch.zeros(len(logits), 1, 4, 4)
    images.view(len(logits), 16)[:, : logits.shape[1]] = logits
    return PatientScans(images, torch.as_tensor(labels))


def people(classes, count=200, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    return [patient(row[None], [label]) for row, label in zip(logits, labels, strict=True)], logits, labels


def counted(network, patients, counts):
    """The sum in patients, as people read it."""
    return count_patients(network, patients, counts) / UNITS_PER_PATIENT


def test_two_classes_give_the_confusion_table_and_an_auc_within_its_binning_error():
    counts = CountLayout(CountKind.CLASSIFICATION, 2, 64)
    patients, logits, labels = people(2)
    tables = counts.tables(counted(FirstPixels(2), patients, counts))
    scores = np.exp(logits[:, 1]) / np.exp(logits).sum(1)
    assert np.array_equal(tables["confusion"], confusion_matrix(labels, logits.argmax(1)))
    found = area_under_curve(tables["histograms"][0])
    assert abs(found.value - roc_auc_score(labels, scores)) <= found.binning_error < 0.02
    assert tables["confidence"].sum() == len(labels)


def test_several_classes_have_a_histogram_each():
    counts = CountLayout(CountKind.CLASSIFICATION, 4, 64)
    patients, logits, labels = people(4)
    tables = counts.tables(counted(FirstPixels(4), patients, counts))
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for index in range(4):
        found = area_under_curve(tables["histograms"][index])
        assert abs(found.value - roc_auc_score(labels == index, scores[:, index])) <= found.binning_error


def test_scans_of_a_patient_are_averaged_into_one_count():
    counts = CountLayout(CountKind.CLASSIFICATION, 2, 10)
    total = counted(FirstPixels(2), [patient([[0.0, 9.0], [9.0, 0.0], [9.0, 0.0]], [0, 0, 0])], counts)
    tables = counts.tables(total)
    assert tables["confusion"].tolist() == [[1, 0], [0, 0]]
    assert tables["histograms"][0, 0, 3] == 1, "mean score of class 1 is one third"


def test_a_patient_with_one_score_that_is_not_finite_adds_nothing_even_where_that_label_is_unknown():
    counts = CountLayout(CountKind.MULTI_LABEL, 3, 10)
    half = patient([[2.0, float("nan"), -2.0]], torch.tensor([[1, UNKNOWN, 0]]))
    whole = patient([[2.0, 1.0, -2.0]], torch.tensor([[1, UNKNOWN, 0]]))
    assert not counted(FirstPixels(3), [half], counts).any()
    assert counted(FirstPixels(3), [whole], counts).any()


def test_several_labels_leave_unknown_ones_out():
    counts = CountLayout(CountKind.MULTI_LABEL, 3, 10)
    labels = torch.tensor([[1, UNKNOWN, 0]])
    tables = counts.tables(counted(FirstPixels(3), [patient([[9.0, 9.0, -9.0]], labels)], counts))
    assert tables["histograms"][0, 1, 9] == 1
    assert tables["histograms"][2, 0, 0] == 1
    assert tables["histograms"].sum() == 2


def test_segmentation_sums_the_dice_of_each_patient():
    counts = CountLayout(CountKind.SEGMENTATION, 2, 8)
    image = torch.zeros(1, 1, 4, 4)
    image[..., :2, :] = 1.0  # 8 voxels predicted
    truth = torch.zeros(1, 4, 4, dtype=torch.int64)
    truth[:, 1:3] = 1  # 8 voxels true, 4 shared: Dice 1/2
    nothing = PatientScans(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64))
    network = FirstPixels(2, voxels=True)
    tables = counts.tables(counted(network, [PatientScans(image, truth), nothing], counts))
    assert mean_dice(tables).tolist() == [0.5]
    assert tables["present"].tolist() == [1.0], "a class that nobody has and nobody found is left out"


SILENT = {
    "without a label": patient([[1.0, 0.0]], [UNKNOWN]),
    "with a prediction that is not finite": patient([[float("nan"), 0.0]], [1]),
    "without scans": PatientScans(torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64)),
}


@pytest.mark.parametrize("kind", SILENT)
def test_a_patient_counts_nothing(kind):
    counts = CountLayout(CountKind.CLASSIFICATION, 2, 8)
    assert not counted(FirstPixels(2), [SILENT[kind]], counts).any()


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_scan_with_one_voxel_that_is_not_finite_adds_no_dice(value, dimensions):
    counts = CountLayout(CountKind.SEGMENTATION, 2, 0)
    images, truth = torch.ones(2, 1, *(4,) * dimensions), torch.ones(2, *(4,) * dimensions, dtype=torch.int64)
    assert counted(FirstPixels(2, voxels=True), [PatientScans(images, truth)], counts).any()
    images.view(2, -1)[1, 3] = value
    assert not counted(FirstPixels(2, voxels=True), [PatientScans(images, truth)], counts).any()


@pytest.mark.parametrize("kind", list(CountKind))
@pytest.mark.parametrize("classes", [2, 3])
def test_no_patient_moves_the_counts_by_more_than_the_stated_norm(kind, classes):
    counts = CountLayout(kind, classes, 5)
    random = np.random.default_rng(1)
    network = FirstPixels(classes)
    norms = []
    for _ in range(30):
        if kind is CountKind.SEGMENTATION:
            network = nn.Conv2d(1, classes, 1)
            one = PatientScans(torch.rand(3, 1, 4, 4), torch.from_numpy(random.integers(-1, classes, (3, 4, 4))))
        elif kind is CountKind.MULTI_LABEL:
            one = patient(random.normal(size=(3, classes)), random.integers(0, 2, (3, classes)))
        else:
            one = patient(random.normal(size=(3, classes)), random.integers(0, classes, 3))
        norms.append(np.linalg.norm(counted(network, [one], counts)))
    assert max(norms) <= counts.patient_norm + 1e-12
    assert max(norms) >= 0.6 * counts.patient_norm


def somebody(kind, classes, random):
    """A patient with several scans, whose vector is no whole number of patients where the kind allows that."""
    if kind is CountKind.SEGMENTATION:
        size = (3, 4, 4)
        return PatientScans(torch.rand(3, 1, 4, 4), torch.from_numpy(random.integers(-1, classes, size)))
    labels = random.integers(0, 2, (3, classes)) if kind is CountKind.MULTI_LABEL else random.integers(0, classes, 3)
    return patient(random.normal(size=(3, classes)), labels)


@pytest.mark.parametrize("kind", list(CountKind))
def test_what_a_patient_adds_is_the_same_integers_whoever_else_is_there(kind):
    """Dice is no whole number: rounded as a sum, a patient would also move how the others are rounded."""
    counts, random = CountLayout(kind, 3, 5), np.random.default_rng(2)
    torch.manual_seed(2)
    network = FirstPixels(3) if kind is not CountKind.SEGMENTATION else nn.Conv2d(1, 3, 1)
    everybody = [somebody(kind, 3, random) for _ in range(8)]
    alone = [count_patients(network, [one], counts) for one in everybody]
    assert all(each.dtype == np.int64 for each in alone)
    whole = count_patients(network, everybody, counts)
    assert np.array_equal(whole, sum(alone))
    for place, one in enumerate(alone):
        assert np.array_equal(whole - one, count_patients(network, everybody[:place] + everybody[place + 1 :], counts))
        bound = counts.patient_norm * UNITS_PER_PATIENT + math.sqrt(counts.length) / 2
        assert np.linalg.norm(one) <= bound, "what the noise is sized for"


class Raising(FirstPixels):
    """Gives up on a scan whose last pixel is set."""

    def forward(self, images):
        if bool((images[..., -1, -1] == 1).any()):
            raise RuntimeError("patient-0815")
        return super().forward(images)


class Unreadable:
    def __len__(self):
        return 1

    def blocks(self, most):
        raise MemoryError("patient-0815")


def raising_patient():
    one = patient([[9.0, 0.0], [9.0, 0.0]], [1, 1])
    one.images[1, 0, -1, -1] = 1
    return one


RAISING = {
    "a scan that the network raises on": raising_patient(),
    "a scan that cannot be read": Unreadable(),
    "a class that the plan does not have": patient([[9.0, 0.0]], [7]),
    "fewer labels than images": PatientScans(torch.rand(3, 1, 4, 4), torch.tensor([1])),
}


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("case", RAISING)
def test_a_held_out_record_that_raises_adds_nothing_and_the_others_add_the_same_integers(case, place, caplog):
    counts = CountLayout(CountKind.CLASSIFICATION, 2, 8)
    others = people(2, count=3)[0]
    with_it = [*others[:place], RAISING[case], *others[place:]]
    found = count_patients(Raising(2), with_it, counts, scans_at_once=1)
    assert np.array_equal(found, count_patients(Raising(2), others, counts, scans_at_once=1))
    assert found.any()
    assert "0815" not in caplog.text


@pytest.mark.parametrize("kind", list(CountKind))
@pytest.mark.parametrize("most", [1, 2, 7])
def test_blocks_of_scans_give_the_counts_of_the_whole_to_rounding(kind, most):
    counts, random = CountLayout(kind, 3, 5), np.random.default_rng(3)
    torch.manual_seed(3)
    network = FirstPixels(3) if kind is not CountKind.SEGMENTATION else nn.Conv2d(1, 3, 1)
    for _ in range(10):
        one = somebody(kind, 3, random)
        blocks = count_patients(network, [one], counts, scans_at_once=most)
        assert np.abs(blocks - count_patients(network, [one], counts, scans_at_once=3)).max() <= 1
