"""Scores from summed counts: the figures of the pooled patients, and errors that grow with the noise."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from common.plan.errors import PlanInvalidError
from common.plan.reading import parse_plan
from common.plan.schedule import count_layout
from common.plan.selection import check_selection, expected_standard_error
from common.privacy.metrics import UNITS_PER_PATIENT
from server.model.evaluation import evaluate

MANY = 1000  # declared at each site: enough for 400 held-out patients at all of them
SITES = ("east", "north", "south", "west")
TASKS = {
    "two classes": {"kind": "classification", "classes": ["no", "yes"]},
    "three classes": {"kind": "classification", "classes": ["no", "benign", "malignant"]},
    "several labels": {"kind": "multi_label", "classes": ["mass", "nodule"]},
    "segmentation": {"kind": "segmentation", "classes": ["background", "liver", "tumour"]},
}


@pytest.fixture
def planned(small_document):
    def make(*, patients=40, noise="none", **sections):
        document = small_document(SITES, noise=noise)
        for site in document["sites"]:
            site["labelled_patients"] = patients
        if noise != "none":
            document["privacy"]["delta"] = 1e-6
        for name, values in sections.items():
            document[name] |= values
        return parse_plan(document, "test")

    return make


def summed(plan, counts):
    return (counts * UNITS_PER_PATIENT).astype(np.int64).view(np.uint64)


def pooled(plan, seed=1, patients=400):
    """Return counts of patients with known scores on bin edges' grid, with their labels and scores."""
    layout = count_layout(plan)
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, patients)
    bins = np.clip(generator.normal(2.5 + 2 * labels, 1.5, patients).astype(int), 0, layout.bins - 1)
    counts = np.zeros(layout.length)
    tables = layout.tables(counts)
    np.add.at(tables["histograms"][0], (labels, bins), 1)
    answers = (bins >= layout.bins // 2).astype(int)
    np.add.at(tables["confusion"], (labels, answers), 1)
    confidence_bin = np.maximum(bins, layout.bins - 1 - bins)
    np.add.at(tables["confidence"], ((answers == labels).astype(int), confidence_bin), 1)
    return counts, labels, bins, answers


def test_two_classes_give_the_figures_of_the_pooled_patients(planned):
    plan = planned(patients=MANY)
    counts, labels, bins, answers = pooled(plan)
    found = evaluate(plan, summed(plan, counts), 4)
    assert found.score == pytest.approx(roc_auc_score(labels, bins))
    assert found.sensitivity["yes"] == pytest.approx(np.mean(answers[labels == 1] == 1))
    assert found.specificity == found.sensitivity["no"] == pytest.approx(np.mean(answers[labels == 0] == 0))
    assert found.balanced_accuracy == pytest.approx((found.sensitivity["yes"] + found.specificity) / 2)
    assert found.patients == 400
    assert 0 <= found.calibration_error < 0.5
    assert found.noise_stddev == 0
    assert found.interval[0] < found.score < found.interval[1]


def test_specificity_is_that_of_the_class_named_normal(planned):
    plan = planned(patients=MANY, task={"normal_class": "yes"})
    counts, *_ = pooled(plan)
    found = evaluate(plan, summed(plan, counts), 4)
    assert found.specificity == found.sensitivity["yes"]


def test_counts_below_zero_come_through_the_unsigned_words(planned):
    plan = planned()
    counts, *_ = pooled(plan)
    counts[-1] -= 1000.0
    assert evaluate(plan, summed(plan, counts), 4).tables["confidence"][1, -1] == counts[-1] < 0


def test_noise_widens_the_interval_and_more_sites_bring_more_noise(planned):
    plan = planned(noise="distributed", patients=MANY)
    counts, *_ = pooled(plan)
    quiet = evaluate(planned(patients=MANY), summed(plan, counts), 4)
    few, many = (evaluate(plan, summed(plan, counts), number) for number in (3, 4))
    assert quiet.standard_error < few.standard_error < many.standard_error
    assert many.noise_stddev / few.noise_stddev == pytest.approx((4 / 3) ** 0.5)


def test_dice_is_the_mean_over_the_patients_that_have_the_class(planned):
    plan = planned(task=TASKS["segmentation"], network={"name": "unet"})
    layout = count_layout(plan)
    counts = np.zeros(layout.length)
    layout.tables(counts)["dice"][:] = [8.0, 0.0]
    layout.tables(counts)["present"][:] = [10.0, 0.0]
    found = evaluate(plan, summed(plan, counts), 4)
    assert found.dice["liver"] == found.score == 0.8
    assert found.document()["dice"]["tumour"] is None


@pytest.mark.parametrize("task", TASKS)
def test_empty_counts_give_no_score_and_still_a_document(planned, task):
    plan = planned(task=TASKS[task])
    document = evaluate(plan, np.zeros(count_layout(plan).length, np.uint64), 4).document()
    assert document["score"] is None
    assert document["auc"] == {}


@pytest.mark.parametrize("task", ["three classes", "several labels"])
def test_each_class_has_an_auc_of_its_own(planned, task):
    plan = planned(task=TASKS[task], patients=MANY)
    layout = count_layout(plan)
    counts = np.zeros(layout.length)
    tables = layout.tables(counts)
    histograms = tables["histograms"]
    histograms[:, 0, 1] = 100  # negatives low, positives high: every class is told apart but the last
    histograms[:, 1, 6] = 50
    histograms[-1, 1] = histograms[-1, 0] / 2
    if "confusion" in tables:  # the same 150 patients
        tables["confusion"][:] = 50 * np.eye(3)
        tables["confidence"][1, 6] = 150
    found = evaluate(plan, summed(plan, counts), 4)
    values = [auc["value"] for auc in found.auc.values()]
    assert list(found.auc) == list(plan.task.classes)
    assert values == [1.0] * (len(values) - 1) + [0.5]
    assert found.score == pytest.approx(np.mean(values))


def test_scores_choose_the_model_only_where_enough_patients_are_held_out(planned):
    best = {"aggregation": {"model_selection": "best_noised"}}
    with pytest.raises(PlanInvalidError, match="standard error is"):
        check_selection(planned(noise="distributed", **best), "study.toml")
    assert check_selection(planned(noise="distributed", patients=20_000, **best), "study.toml") < 0.03
    assert check_selection(planned(noise="distributed"), "study.toml") > 0.03  # allowed: the last average is taken


def test_the_expected_error_falls_with_patients_and_with_budget(planned):
    errors = [
        expected_standard_error(planned(noise="distributed", patients=patients, evaluation={"epsilon": epsilon}))
        for patients, epsilon in ((400, 1.0), (4000, 1.0), (4000, 4.0))
    ]
    assert errors == sorted(errors, reverse=True)
    assert expected_standard_error(planned(evaluation={"held_out": False})) == float("inf")
