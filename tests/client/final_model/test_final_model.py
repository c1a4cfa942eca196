"""Scores and predictions of a final model: against reference figures, for every kind of task."""

import csv
import io

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from torch import nn

from client.final_model.predicting import predict
from client.final_model.scoring import auc_interval, score
from client.learning.patients import UNKNOWN, PatientScans
from common.plan.task import Image, Network, Task
from simulation.drawing.scanners import Scanner
from simulation.hospitals.hospital import Holdings, write_hospital
from simulation.hospitals.phantoms import render_segmented


class Readout(nn.Module):
    """Answers with logits that are written into the first pixels of each image."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return images.flatten(1)[:, : self.classes]


def task(kind="classification", classes=("normal", "nodule")) -> Task:
    return Task(kind=kind, classes=classes, modalities=("DX",), dimensions=2)


def patients_with(logits, labels):
    """One scan for each patient whose image holds its logits."""
    for row, label in zip(logits, labels, strict=True):
        image = torch.zeros(1, 1, 4, 4)
        image.view(-1)[: len(row)] = torch.tensor(row, dtype=torch.float32)
        yield PatientScans(image, torch.as_tensor(np.asarray([label])))


def drawn(count, classes, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels], labels


def test_two_classes_have_one_row_with_the_reference_figures():
    logits, labels = drawn(80, 2)
    found = score(Readout(2), task(), patients_with(logits, labels))
    (row,) = found.classes
    said = logits.argmax(1) == 1
    assert row.auc.value == pytest.approx(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))
    for share, right in ((row.sensitivity, said[labels == 1]), (row.specificity, ~said[labels == 0])):
        reference = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        assert share.value == pytest.approx(right.mean())
        assert (share.low, share.high) == (
            pytest.approx(reference.low, abs=1e-6),
            pytest.approx(reference.high, abs=1e-6),
        )
    assert row.auc.low < row.auc.value < row.auc.high
    assert (found.patients, row.with_class, row.without) == (80, (labels == 1).sum(), (labels == 0).sum())


def test_the_interval_of_an_auc_holds_the_truth_about_as_often_as_it_says():
    """Two normal distributions 1.5 standard deviations apart: AUC = Phi(1.5 / sqrt(2)) = 0.8556."""
    rng, inside = np.random.default_rng(5), 0
    for _ in range(400):
        has = np.arange(60) % 2 == 1
        found = auc_interval(rng.normal(size=60) + 1.5 * has, has)
        inside += found.low <= 0.8556 <= found.high
    assert 364 <= inside <= 396  # 95 % of 400, and four standard errors


def test_several_classes_have_a_row_each():
    logits, labels = drawn(90, 3)
    classes = ("normal", "nodule", "effusion")
    found = score(Readout(3), task(classes=classes), patients_with(logits, labels))
    shares = torch.softmax(torch.tensor(logits), 1).numpy()
    assert [row.name for row in found.classes] == list(classes)
    for index, row in enumerate(found.classes):
        assert row.auc.value == pytest.approx(roc_auc_score(labels == index, shares[:, index]))


def test_several_labels_at_once_leave_out_what_nobody_knows():
    logits, _ = drawn(60, 2)
    labels = np.random.default_rng(1).integers(0, 2, (60, 2))
    labels[:20, 1] = UNKNOWN
    found = score(Readout(2), task("multi_label", ("nodule", "effusion")), patients_with(logits, labels))
    known = labels[:, 1] != UNKNOWN
    assert found.classes[1].auc.value == pytest.approx(roc_auc_score(labels[known, 1], logits[known, 1]))
    assert found.classes[1].with_class + found.classes[1].without == 40
    assert found.calibration_error is None


def test_a_confident_network_that_is_always_right_is_calibrated_and_one_that_is_wrong_is_not():
    labels = np.arange(40) % 2
    sure = 40.0 * (np.eye(2)[labels] - 0.5)
    right = score(Readout(2), task(), patients_with(sure, labels))
    wrong = score(Readout(2), task(), patients_with(sure, 1 - labels))
    assert right.calibration_error == pytest.approx(0.05)  # the last bin's centre is 0.95
    assert wrong.calibration_error == pytest.approx(0.95)
    assert right.classes[0].auc.value == 1.0
    assert 0.5 < right.classes[0].auc.low < 1.0


def test_few_patients_are_not_counted_out_loud():
    logits, labels = drawn(9, 2)
    found = score(Readout(2), task(), patients_with(logits, labels))
    assert (found.patients, found.classes[0].with_class, found.classes[0].without) == (None, None, None)


@pytest.mark.parametrize("labels", [[UNKNOWN] * 12, []])
def test_patients_without_a_label_give_no_score(labels):
    logits = np.zeros((len(labels), 2))
    assert score(Readout(2), task(), patients_with(logits, labels)).patients == 0


def test_a_class_that_nobody_has_gives_no_auc():
    logits, _ = drawn(20, 2)
    (row,) = score(Readout(2), task(), patients_with(logits, [0] * 20)).classes
    assert (row.auc, row.sensitivity, row.with_class) == (None, None, 0)


class Threshold(nn.Module):
    """Calls every voxel brighter than one half a lesion."""

    def forward(self, images):
        return torch.cat([0.5 - images, images - 0.5], 1)


def test_dice_of_a_segmentation_is_that_of_the_voxels():
    rng = np.random.default_rng(2)
    patients, expected = [], []
    for _ in range(12):
        image, expert = rng.random((1, 1, 8, 8)), rng.random((1, 8, 8)) > 0.5
        patients.append(PatientScans(torch.tensor(image, dtype=torch.float32), torch.tensor(expert.astype(np.int64))))
        ours = image[:, 0] > 0.5
        expected.append(2 * (ours & expert).sum() / (ours.sum() + expert.sum()))
    (row,) = score(Threshold(), task("segmentation", ("background", "lesion")), patients).classes
    assert row.dice.value == pytest.approx(np.mean(expected), abs=1e-6)
    reach = 1.959964 * np.std(expected, ddof=1) / np.sqrt(12)
    assert row.dice.high - row.dice.value == pytest.approx(reach, abs=1e-6)


class Plan:
    """The parts of a plan that predictions need."""

    task = Task(kind="segmentation", classes=("background", "lesion"), modalities=("CT",), dimensions=3)
    image = Image(size_px=(12, 32, 32), spacing_mm=(5.0, 2.0, 2.0), intensity="ct_window", window_hu=(0.0, 2048.0))
    network = Network(name="unet")


def test_volumes_of_new_series_are_told_in_ml_and_slices_by_number(tmp_path):
    images, found = render_segmented("ct", np.array([1, 1]), np.random.default_rng(3), (12, 32, 32))
    holdings = Holdings(
        images,
        np.array([1, 1]),
        np.arange(2),
        np.zeros(2, bool),
        ("background", "lesion"),
        "CT",
        found,
        (5.0, 2.0, 2.0),
    )
    write_hospital(tmp_path / "site", holdings, Scanner(), seed=1)
    scans = tmp_path / "site/scans"
    broken = sorted(scans.rglob("*.dcm"))[3]
    broken.unlink()  # a slice of the first series is missing
    told = predict(Threshold(), Plan, scans, temporary=tmp_path)
    (row,) = told.rows
    assert row.files == tuple(range(12, 24))
    assert set(told.refused) == set(range(1, 12))
    assert {code.value for code in told.refused.values()} == {"series_missing_slice"}
    second = [
        image for image in images if abs(float((image > 0.5).sum()) * 0.02 - row.figures[0]) < 0.05 * row.figures[0]
    ]
    assert second, "the volume is that of the bright voxels, 0.02 ml each"
    table = list(csv.DictReader(io.StringIO(told.to_csv().partition("\n")[2])))
    assert table[0]["ml_lesion"] == f"{row.figures[0]:.6g}"
    assert list(tmp_path.iterdir()) == [tmp_path / "site"]


def test_the_short_lived_cache_is_gone_even_after_a_failure(tmp_path):
    class Failing(nn.Module):
        def forward(self, images):
            raise RuntimeError("out of memory")

    images, _ = render_segmented("ct", np.array([1]), np.random.default_rng(3), (12, 32, 32))
    holdings = Holdings(
        images, np.array([1]), np.arange(1), np.zeros(1, bool), ("background", "lesion"), "CT", None, (5.0, 2.0, 2.0)
    )
    write_hospital(tmp_path / "site", holdings, Scanner(), seed=1)
    with pytest.raises(RuntimeError):
        predict(Failing(), Plan, tmp_path / "site/scans", temporary=tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "site"]
