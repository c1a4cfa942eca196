"""Mergeable counts: sums of sites give the figures of the union, with a stated error."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, roc_auc_score

from common.privacy.metrics import (
    CountKind,
    CountLayout,
    area_under_curve,
    auc_standard_error,
    balanced_accuracy,
    calibration_error,
    sensitivities,
)


def histogram(labels, scores, bins):
    table = np.zeros((2, bins))
    np.add.at(table, (labels, np.minimum((scores * bins).astype(int), bins - 1)), 1)
    return table


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=2, max_size=60),
    st.integers(2, 64),
)
def test_the_exact_auc_lies_within_the_binning_error(pairs, bins):
    labels, scores = np.array([p[0] for p in pairs], int), np.array([p[1] for p in pairs])
    found = area_under_curve(histogram(labels, scores, bins))
    if labels.min() == labels.max():
        assert found is None
    else:
        assert abs(found.value - roc_auc_score(labels, scores)) <= found.binning_error + 1e-12


def test_the_sum_of_two_sites_gives_the_auc_of_the_union():
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 400), random.random(400)
    parts = histogram(labels[:150], scores[:150], 32) + histogram(labels[150:], scores[150:], 32)
    assert area_under_curve(parts).value == area_under_curve(histogram(labels, scores, 32)).value


def test_the_standard_error_is_that_seen_over_repeated_samples_and_noise():
    random = np.random.default_rng(1)
    values, errors = [], []
    for _ in range(400):
        labels = np.repeat([0, 1], [60, 90])
        scores = np.clip(random.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
        noised = histogram(labels, scores, 16) + random.normal(0, 1.5, (2, 16))
        found = area_under_curve(noised, noise_stddev=1.5)
        values.append(found.value)
        errors.append(found.standard_error)
    assert 0.7 * np.std(values) < np.mean(errors) < 1.6 * np.std(values)


def test_more_noise_and_fewer_patients_make_a_larger_standard_error():
    plain = auc_standard_error(0.9, positives=100, negatives=100, bins=16)
    assert plain < auc_standard_error(0.9, positives=100, negatives=100, bins=16, noise_stddev=3)
    assert plain < auc_standard_error(0.9, positives=20, negatives=20, bins=16)
    # Hanley & McNeil 1982, Table II: A = 0.80 with 50 and 50 cases has a standard error of 0.044.
    assert auc_standard_error(0.8, positives=50, negatives=50, bins=2) == pytest.approx(0.0445, abs=1e-3)


def test_an_empty_side_has_no_auc():
    assert area_under_curve(np.array([[0.0, 0.0], [3.0, 1.0]])) is None
    assert area_under_curve(np.array([[-4.0, 1.0], [3.0, 1.0]])) is None


def test_balanced_accuracy_and_sensitivities_agree_with_scikit_learn():
    random = np.random.default_rng(2)
    truth, answers = random.integers(0, 3, 200), random.integers(0, 3, 200)
    table = confusion_matrix(truth, answers).astype(float)
    assert balanced_accuracy(table) == pytest.approx(balanced_accuracy_score(truth, answers))
    empty = np.array([[3.0, 1.0], [0.0, 0.0]])
    assert sensitivities(empty)[0] == 0.75
    assert math.isnan(sensitivities(empty)[1])
    assert balanced_accuracy(empty) == 0.75
    assert math.isnan(balanced_accuracy(np.zeros((2, 2))))


def test_calibration_error_of_known_tables():
    right_as_often_as_said = np.array([[3.0, 1.0], [1.0, 3.0]])  # bins centred on 0.25 and 0.75
    assert calibration_error(right_as_often_as_said) == pytest.approx(0)
    assert calibration_error(np.array([[0.0, 4.0], [0.0, 0.0]])) == pytest.approx(0.75)
    assert math.isnan(calibration_error(np.zeros((2, 4))))


@pytest.mark.parametrize("kind", list(CountKind))
@pytest.mark.parametrize("classes", [2, 5])
def test_a_layout_cuts_its_vector_into_tables_without_gap_or_overlap(kind, classes):
    counts = CountLayout(kind, classes, 7)
    tables = counts.tables(np.arange(counts.length))
    assert sorted(np.concatenate([table.ravel() for table in tables.values()])) == list(range(counts.length))
    with pytest.raises(ValueError, match="needs"):
        counts.tables(np.zeros(counts.length + 1))
