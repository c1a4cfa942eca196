import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as reference_curve

from simulation.report.intervals import auc_estimate, bootstrap_estimate, calibration_curve, roc_curve


def drawn(images, difference, seed=0, ties=0):
    rng = np.random.default_rng(seed)
    is_positive = rng.random(images) < 0.4
    scores = rng.normal(size=images) + difference * is_positive
    return (np.round(scores * ties) / ties if ties else scores), is_positive


@pytest.mark.parametrize("ties", [0, 1, 3])
@pytest.mark.parametrize("difference", [0.0, 1.0, 3.0])
def test_the_auc_is_the_one_of_scikit_learn_ties_included(difference, ties):
    scores, is_positive = drawn(300, difference, ties=ties)
    assert auc_estimate(scores, is_positive).value == pytest.approx(roc_auc_score(is_positive, scores))


def test_delongs_interval_holds_the_true_auc_in_about_19_of_20_sets():
    # Two normals one standard deviation apart: AUC = Phi(1 / sqrt 2) = 0.7602.
    found = [auc_estimate(*drawn(200, 1.0, seed)) for seed in range(400)]
    held = sum(estimate.low <= 0.760250 <= estimate.high for estimate in found)
    assert 365 <= held <= 393  # binomial(400, 0.95) within three standard deviations


def test_delongs_interval_agrees_with_the_bootstraps():
    scores, is_positive = drawn(500, 1.2)
    ours = auc_estimate(scores, is_positive)
    other = bootstrap_estimate(lambda rows: auc_estimate(scores[rows], is_positive[rows]).value, 500)
    assert (other.low, other.high) == (pytest.approx(ours.low, abs=0.01), pytest.approx(ours.high, abs=0.01))


def test_a_perfect_model_has_a_point_as_interval_and_stays_within_one():
    is_positive = np.array([False] * 5 + [True] * 5)
    estimate = auc_estimate(np.arange(10.0), is_positive)
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)
    nearly = auc_estimate(np.array([0, 1, 2, 3, 5, 4, 6, 7, 8, 9.0]), is_positive)
    assert 0 < nearly.low < nearly.value < nearly.high < 1


def test_one_image_of_a_class_is_not_enough():
    with pytest.raises(ValueError, match="at least two"):
        auc_estimate(np.arange(4.0), np.array([True, False, False, False]))


def test_the_roc_curve_lies_on_the_reference():
    scores, is_positive = drawn(400, 1.0)
    false, true, _ = reference_curve(is_positive, scores, drop_intermediate=False)
    known = {(round(x, 9), round(y, 9)) for x, y in zip(false, true, strict=True)}
    assert all((round(x, 9), round(y, 9)) in known for x, y in roc_curve(scores, is_positive))


def test_calibration_bins_hold_every_image_once():
    rng = np.random.default_rng(1)
    confidence, is_right = rng.uniform(0.5, 1.0, 1000), rng.random(1000) < 0.8
    points = calibration_curve(confidence, is_right)
    assert sum(count for _, _, count in points) == 1000
    assert sum(share * count for _, share, count in points) == pytest.approx(is_right.sum())
    assert all(0.5 <= mean <= 1.0 for mean, _, _ in points)
