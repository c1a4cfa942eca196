"""The agent's mechanism: nothing leaves without its noise, its cut and its bound, whatever the training claims."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from client.learning.mechanism import BLOCK, WIDEST, Mechanism, SumRules
from client.learning.noise import LARGEST_NORMAL, PrivacyRandomness
from client.learning.patient_counts import PatientCounts
from client.learning.training_settings import Method, Placement, Task, TrainingSettings
from common.plan.errors import PlanWeakPrivacyError
from common.privacy.metrics import UNITS_PER_PATIENT, CountKind, CountLayout

MANY = 200_000
STEP = 2.0**-18
LIMIT = round(32 / STEP)
PEOPLE = PatientCounts(labelled=3, unlabelled=5, held_out=2)


class NoNoise:
    """Zeros, and what was asked for."""

    def __init__(self):
        self.asked = []

    def integers(self, length, stddev):
        self.asked.append((length, stddev))
        return np.zeros(length, np.int64)


def settings(**changes):
    usual = {
        "task": Task.CLASSIFICATION,
        "classes": 2,
        "dimensions": 2,
        "method": Method.FIXMATCH,
        "labelled_sampling_rate": 0.5,
        "unlabelled_sampling_rate": 0.5,
        "unlabelled_clip_ratio": 0.25,
        "clipping_norm": 2.0,
        "noise_multiplier": 3.0,
        "honest_survivors": 4,
    }
    return TrainingSettings(**(usual | changes))


def rules(length=MANY, *, people=PEOPLE, step=STEP, limit=LIMIT, **changes):
    return SumRules.of_gradients(settings(**changes), people, length=length, step=step, limit=limit)


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({"honest_survivors": 1}, 1.0),
        ({"honest_survivors": 4}, 0.5),
        ({"honest_survivors": 4, "placement": Placement.LOCAL}, 1.0),
    ],
    ids=["the only honest site adds it all", "one of four adds half", "local noise is never shared"],
)
def test_the_noise_of_a_site_has_the_share_of_the_plan_and_pays_for_rounding(changes, share):
    length = 400
    rounding = STEP * math.sqrt(length) / 0.5  # over the smaller clipping norm, that of unlabelled patients
    assert rules(length, limit=WIDEST, **changes).stddev == pytest.approx(
        3.0 * 2.0 * share * (1 + rounding) / STEP, rel=1e-12
    )


def test_rounding_is_charged_to_the_smallest_clip_in_use():
    alone = rules(400, unlabelled_sampling_rate=0.0, method=Method.SUPERVISED)
    assert alone.stddev == pytest.approx(3.0 * (1 + STEP * 20 / 2.0) / STEP, rel=1e-12)


@pytest.mark.parametrize("sums", [0, 12345, -(2**20)])
def test_what_leaves_is_the_sum_and_gaussian_noise_of_that_width(sums):
    mechanism = Mechanism(rules(people=PatientCounts(labelled=10**9)), PrivacyRandomness())
    noise = mechanism.released(np.full(MANY, sums, np.int32)).astype(np.float64) - sums
    claimed = rules().stddev
    assert stats.chi2.sf(np.sum((noise / claimed) ** 2), MANY) > 1e-6
    assert stats.chi2.cdf(np.sum((noise / claimed) ** 2), MANY) > 1e-6
    assert stats.kstest(noise / claimed, "norm").pvalue > 1e-6


def test_no_two_blocks_of_a_long_sum_share_their_noise():
    length = BLOCK + 1000
    found = Mechanism(rules(length), PrivacyRandomness()).released(np.zeros(length, np.int32))
    assert abs(np.corrcoef(found[:1000], found[BLOCK:])[0, 1]) < 0.2


def test_no_two_releases_share_their_noise():
    mechanism = Mechanism(rules(1000), PrivacyRandomness())
    first, second = (mechanism.released(np.zeros(1000, np.int32)) for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


def test_every_block_of_a_long_sum_is_noised(monkeypatch):
    monkeypatch.setattr("client.learning.mechanism.BLOCK", 100)
    found = Mechanism(rules(350), PrivacyRandomness()).released(np.zeros(350, np.int32))
    assert all(np.any(found[start : start + 50]) for start in range(0, 350, 50))


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("beyond", [2**23, 2**24, 2**30, -(2**31), 2**40])
def test_a_sum_beyond_the_range_is_cut_before_the_noise_and_keeps_its_share(beyond, kind):
    """Cut with its noise, this site would add a constant: at another site, a patient's noise would be h times less."""
    if kind is np.int32 and beyond == 2**40:
        pytest.skip("not an integer of 32 bits")
    crowd = rules(clipping_norm=1.0, unlabelled_clip_ratio=0.5, people=PatientCounts(labelled=10**12))
    found = Mechanism(crowd, PrivacyRandomness()).released(np.full(MANY, beyond, kind)).astype(np.int64)
    assert found.dtype == np.int64
    assert np.abs(found).max() <= LIMIT, "nothing is cut after the noise"
    assert np.std(found) == pytest.approx(crowd.stddev, rel=0.02)


def test_the_cut_leaves_room_for_the_largest_draw_and_for_a_patient():
    roomy = rules()
    assert roomy.room == LIMIT - math.ceil(LARGEST_NORMAL * roomy.stddev) - 1
    drawn = Mechanism(roomy, NoNoise()).released(np.full(MANY, 2**30, np.int32)[:1])
    del drawn
    with pytest.raises(PlanWeakPrivacyError, match="no room"):
        rules(limit=round(26 / STEP))


def test_a_cut_coordinate_is_cut_to_the_room_itself():
    few = rules(4, people=PatientCounts(labelled=10**9))
    sums = np.array([few.room, few.room + 1, -few.room - 5, 7], np.int32)
    assert Mechanism(few, NoNoise()).released(sums).tolist() == [few.room, few.room, -few.room, 7]


def longest(length, labelled, unlabelled):
    return labelled * (2.0 / STEP + math.sqrt(length) / 2) + unlabelled * (0.5 / STEP + math.sqrt(length) / 2)


@pytest.mark.parametrize(
    ("people", "changes", "most"),
    [
        (PEOPLE, {}, longest(9, 3, 5)),
        (PEOPLE, {"unlabelled_sampling_rate": 0.0, "method": Method.SUPERVISED}, longest(9, 3, 0)),
        (PEOPLE, {"labelled_sampling_rate": 0.0}, longest(9, 0, 5)),
        (PatientCounts(held_out=50), {}, 0.0),
    ],
    ids=["both strata", "labelled only", "unlabelled only", "nobody trains"],
)
def test_the_longest_sum_is_all_clips_together(people, changes, most):
    assert rules(9, people=people, **changes).largest_norm == pytest.approx(most, rel=1e-12)


@pytest.mark.parametrize("factor", [0.999, 1.001, 1000.0])
def test_a_sum_longer_than_its_patients_can_make_it_is_replaced_by_nothing(factor):
    few = rules(9, limit=2**31 - 1, step=STEP / 8)
    assert few.largest_norm < few.room, "the cut would not do it"
    sums = np.zeros(9, np.int64)
    sums[[2, 5]] = [round(0.6 * factor * few.largest_norm), -round(0.8 * factor * few.largest_norm)]
    claimed = sums.copy()
    mechanism = Mechanism(few, NoNoise())
    assert mechanism.is_possible(sums) == (factor < 1)
    assert mechanism.released(sums).tolist() == (claimed.tolist() if factor < 1 else [0] * 9)


@pytest.mark.parametrize("length", [8, 10, 0])
def test_a_sum_of_another_length_is_noise_alone_of_the_right_length(length):
    found = Mechanism(rules(9), PrivacyRandomness()).released(np.ones(length, np.int32))
    assert found.shape == (9,)
    assert found.any()


@pytest.mark.parametrize("hostile", [2**63 - 1, -(2**63)])
def test_the_widest_integers_cannot_overflow_into_a_sum(hostile):
    local = rules(3, limit=WIDEST, placement=Placement.LOCAL, people=PatientCounts(labelled=1000))
    assert Mechanism(local, NoNoise()).released(np.full(3, hostile, np.int64)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("honest", [1, 4])
def test_counts_are_noised_for_the_norm_of_one_patient_with_its_rounding(honest):
    layout = CountLayout(CountKind.CLASSIFICATION, 2, 100)
    found = SumRules.of_counts(layout, held_out=7, noise_multiplier=2.0, honest_survivors=honest)
    norm = math.sqrt(3) * UNITS_PER_PATIENT + math.sqrt(404) / 2
    assert layout.length == 404
    assert found.stddev == pytest.approx(2.0 * norm / math.sqrt(honest), rel=1e-12)
    assert found.largest_norm == pytest.approx(7 * norm, rel=1e-12)
    mechanism = Mechanism(found, PrivacyRandomness())
    drawn = np.concatenate([mechanism.released(np.zeros(404, np.int64)) for _ in range(100)])
    assert 0.98 * found.stddev < drawn.std() < 1.02 * found.stddev


def test_without_privacy_sums_are_only_cut():
    noise = NoNoise()
    bare = rules(3, placement=Placement.NONE, noise_multiplier=0.0)
    assert Mechanism(bare, noise).released(np.array([5, 2**30, -(2**31)])).tolist() == [5, LIMIT, -LIMIT]
    counts = SumRules.of_counts(
        CountLayout(CountKind.CLASSIFICATION, 2, 4), held_out=1, noise_multiplier=0.0, honest_survivors=1
    )
    assert (Mechanism(counts, noise).released(np.full(counts.length, 9000)) == 9000).all()
    assert noise.asked == []


def test_mechanism_and_noise_need_no_pytorch_and_the_trainer_has_neither():
    def loaded(module):
        code = f"import sys, {module}; print(*sys.modules)"
        return set(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        )

    assert "torch" not in loaded("client.learning.mechanism, client.learning.private_round, client.learning.release")
    assert not {"client.learning.mechanism", "client.learning.noise"} & loaded("client.trainer.__main__")
