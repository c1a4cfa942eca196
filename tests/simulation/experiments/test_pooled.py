"""The pooled experiment: its phases stay within the budget, its figures are computed right, and it trains."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from client.learning.noise import PrivacyRandomness
from client.learning.patients import UNKNOWN, ArrayPatients
from common.errors import FileUnreadableError
from common.networks.registry import build_network
from simulation.experiments.pneumonia import Pneumonia, exact_auc
from simulation.experiments.pneumonia_pooled import ARMS, Arms, _check_budget
from simulation.experiments.pooled import run_phase, without_privacy
from simulation.experiments.pooled_phases import PhaseMaker


def maker():
    return PhaseMaker(labelled=200, unlabelled=4000, epsilon=8.0, delta=1e-5)


def test_phases_of_one_stratum_share_its_budget_and_strata_do_not_share():
    one = maker()
    _check_budget([one.standardise_unlabelled(2, epsilon=3.0), one.head(rounds=40), one.student(rounds=20)])
    alone = maker().head(rounds=40).settings.noise_multiplier
    assert one.head(rounds=40).settings.noise_multiplier > alone, "a second head has only the rest of the budget"
    assert maker().head(rounds=40).settings.noise_multiplier == alone


def test_phases_beyond_the_budget_are_refused():
    with pytest.raises(RuntimeError, match="more than 8"):
        _check_budget([maker().head(rounds=40), maker().head(rounds=40)])


def test_the_exact_auc_counts_ties_half():
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 300), random.integers(0, 9, 300).astype(float)
    assert exact_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


def test_missing_data_is_said_in_one_sentence(tmp_path):
    with pytest.raises(FileUnreadableError, match="give the PneumoniaMNIST file"):
        Pneumonia.read(tmp_path / "absent.npz")


def bright_and_dark(count=60):
    """Images whose class is plain to see, a third of them labelled."""
    random = np.random.default_rng(3)
    labels = np.arange(count) % 2
    stripes = np.sin(np.arange(12) * 2.0)[None, None, :] * labels[:, None, None]
    images = (0.5 + 0.3 * stripes + 0.1 * random.random((count, 12, 12))).astype(np.float32)
    known = np.where(np.arange(count) % 3 == 0, labels, UNKNOWN)
    return images, labels, known


def test_standardising_and_a_head_learn_an_easy_task_without_privacy():
    images, labels, known = bright_and_dark()
    people = ArrayPatients(images, known, [f"p{i}" for i in range(len(labels))], dimensions=2)
    network = build_network("small_cnn", dimensions=2, classes=2, width=8)
    phases = PhaseMaker(labelled=20, unlabelled=40, epsilon=8.0, delta=1e-5)
    for phase in (phases.standardise_unlabelled(3, epsilon=3.0), phases.head(rounds=15)):
        run_phase(network, people, without_privacy(phase), noise=None)
    with torch.no_grad():
        scores = network(torch.from_numpy(images).unsqueeze(1))
    assert exact_auc(labels, (scores[:, 1] - scores[:, 0]).numpy()) > 0.95


def test_noise_from_the_operating_system_reaches_the_sum():
    noise = PrivacyRandomness()
    assert not np.array_equal(noise.integers(50, 100.0), noise.integers(50, 100.0))


def test_every_arm_has_its_own_pipeline():
    assert len({arm.__name__ for arm in ARMS.values()}) == len(ARMS)
    assert all(getattr(Arms, arm.__name__) is arm for arm in ARMS.values())
