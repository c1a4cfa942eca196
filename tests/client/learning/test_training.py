"""The training page: what a round returns, in both placements, for labelled and unlabelled patients."""

import numpy as np
import pytest
import torch

from client.dicom.record import Stratum
from client.learning.noise import PrivacyRandomness
from client.learning.patients import UNKNOWN, ArrayPatients
from client.learning.private_training import PrivateTraining
from client.learning.round_randomness import RoundRandomness
from client.learning.training import PublicImages
from client.learning.training_settings import Method, Placement, Task, TrainingSettings
from client.private_gradients.settings import SpeedSettings
from common.networks.errors import WeightsInvalidError
from common.networks.parameters import flatten, layout
from common.networks.registry import build_network
from common.networks.standardisation import standardised
from common.plan.errors import PlanInvalidError

SIZE = 8
KEY = bytes(32)


class NoNoise:
    """Zeros; a private phase cannot be built without a source of noise."""

    def integers(self, length, stddev):
        self.stddev = stddev
        return np.zeros(length, np.int64)


def patients(labelled=3, unlabelled=5, *, seed=0):
    random = np.random.default_rng(seed)
    count = labelled + unlabelled
    labels = np.concatenate([random.integers(0, 2, labelled), np.full(unlabelled, UNKNOWN)])
    images = random.random((count, SIZE, SIZE)).astype(np.float32)
    return ArrayPatients(images, labels, [f"p{i}" for i in range(count)], dimensions=2)


def settings(**changes):
    usual = {
        "task": Task.CLASSIFICATION,
        "classes": 2,
        "dimensions": 2,
        "labelled_sampling_rate": 1.0,
        "noise_multiplier": 1.0,
    }
    return TrainingSettings(**(usual | changes))


def training(chosen, people=None, *, noise=None, zero_head=False, **how):
    network = build_network("small_cnn", dimensions=2, classes=2, width=4, zero_head=zero_head, seed=2)
    noise = None if chosen.placement is Placement.NONE else noise or NoNoise()
    return PrivateTraining(
        network, people or patients(), chosen, noise=noise, speed=SpeedSettings(engine="loop"), **how
    )


def start_of(phase):
    return flatten(phase.network, phase.order)


def one_round(phase, round_number=1):
    return phase.train_round(round_number, start_of(phase), randomness=RoundRandomness(KEY))


@pytest.mark.parametrize(
    ("method", "trainable"),
    [
        (Method.TEACHER_STUDENT, "all"),
        (Method.FIXMATCH, "head"),
        (Method.STANDARDISE, "feature_norm"),
    ],
)
def test_a_site_with_only_unlabelled_patients_teaches_something(method, trainable):
    chosen = settings(
        method=method,
        trainable=trainable,
        unlabelled_sampling_rate=1.0,
        unlabelled_clip_ratio=1.0,
        confidence_threshold=0.0,
    )
    update = one_round(training(chosen, patients(labelled=0)))
    assert np.linalg.norm(update.vector) > 0.01


def test_the_unlabelled_loss_has_a_gradient_beside_the_supervised_one():
    both = settings(
        method=Method.FIXMATCH, unlabelled_sampling_rate=1.0, unlabelled_clip_ratio=1.0, confidence_threshold=0.0
    )
    labels_only = settings(unlabelled_sampling_rate=0.0)
    assert np.linalg.norm(one_round(training(both)).vector - one_round(training(labels_only)).vector) > 0.01


RANDOM_IMAGES = torch.rand(8, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
SILENT = {
    "before its first round": ({"unlabelled_from_round": 5}, {}),
    "when the teacher is never sure enough": ({"confidence_threshold": 1.0}, {}),
    "when the gate has no public images to judge by": ({"gate_balanced_accuracy": 0.7}, {}),
    "when the teacher is too weak on public images": (
        {"gate_balanced_accuracy": 0.7},
        {"public": PublicImages(RANDOM_IMAGES, torch.tensor([0, 1] * 4))},
    ),
}


@pytest.mark.parametrize("reason", SILENT)
def test_unlabelled_patients_contribute_nothing(reason):
    changes, how = SILENT[reason]
    usual = {"method": Method.FIXMATCH, "unlabelled_sampling_rate": 1.0, "confidence_threshold": 0.0}
    phase = training(settings(**(usual | changes)), patients(labelled=0), **how)
    assert not one_round(phase, round_number=4).values.any()


def test_the_gate_opens_for_a_good_teacher_and_late_rounds_take_unlabelled_patients():
    images = torch.rand(8, 1, SIZE, SIZE)
    chosen = settings(
        method=Method.FIXMATCH,
        unlabelled_sampling_rate=1.0,
        confidence_threshold=0.0,
        gate_balanced_accuracy=0.99,
        unlabelled_from_round=4,
    )
    phase = training(chosen, patients(labelled=0))
    phase.public = PublicImages(images, phase.teacher.probabilities(images).argmax(1))
    assert not one_round(phase, round_number=3).values.any()
    assert one_round(phase, round_number=4).values.any()


def test_the_sum_is_bounded_by_the_clips_of_both_strata():
    chosen = settings(
        method=Method.FIXMATCH,
        unlabelled_sampling_rate=1.0,
        unlabelled_clip_ratio=0.1,
        confidence_threshold=0.0,
        clipping_norm=1e-3,
    )
    for people, bound in ((patients(3, 0), 3e-3), (patients(0, 5), 5e-4), (patients(3, 5), 3.5e-3)):
        assert 0 < np.linalg.norm(one_round(training(chosen, people)).vector) <= bound


def test_the_divisor_and_the_noise_do_not_depend_on_who_was_sampled():
    rare = settings(labelled_sampling_rate=0.0, unlabelled_sampling_rate=1e-9, method=Method.FIXMATCH)
    noises = []
    for people in (patients(0, 1), patients(3, 50)):
        noise = NoNoise()
        one_round(training(rare, people, noise=noise))
        noises.append(noise.stddev)
    assert noises[0] == noises[1] > 0


@pytest.mark.parametrize(("honest", "share"), [(1, 1.0), (4, 0.5)])
def test_the_noise_share_has_the_claimed_standard_deviation(honest, share):
    chosen = settings(labelled_sampling_rate=1e-9, noise_multiplier=3.0, clipping_norm=0.5, honest_survivors=honest)
    phase = training(chosen, noise=PrivacyRandomness())
    drawn = np.concatenate([one_round(phase).vector for _ in range(40)])
    claimed = 3.0 * 0.5 * share
    # 40 * 1,618 draws: the standard error of the estimate is 0.28 %, so 1.5 % is more than five of them.
    assert claimed * 0.985 <= drawn.std() <= claimed * 1.015
    assert abs(drawn.mean()) < 5 * claimed / np.sqrt(len(drawn))


def test_local_steps_follow_the_equation_without_noise():
    chosen = settings(
        placement=Placement.LOCAL,
        local_steps=2,
        local_learning_rate=0.3,
        proximal_weight=0.7,
        expected_batch=3.0,
        clipping_norm=0.1,
        trainable="head",
    )
    phase = training(chosen)
    start = start_of(phase)
    found = one_round(phase).vector

    one_step = training(settings(clipping_norm=0.1, trainable="head"))
    first = one_step.train_round(1, start, randomness=RoundRandomness(KEY)).vector / 3.0
    after_first = torch.from_numpy(start.numpy() - 0.3 * first).float()

    class SecondStep(RoundRandomness):
        def generator(self, purpose, *, step, patient_key):
            return super().generator(purpose, step=step + 1, patient_key=patient_key)

    second = one_step.train_round(1, after_first, randomness=SecondStep(KEY)).vector / 3.0
    pull = 0.7 * (after_first.numpy() - start.numpy())
    expected = -0.3 * first - 0.3 * (second + pull)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_local_noise_enters_every_step():
    chosen = settings(
        placement=Placement.LOCAL,
        local_steps=4,
        local_learning_rate=1.0,
        expected_batch=1.0,
        labelled_sampling_rate=1e-9,
        noise_multiplier=2.0,
        honest_survivors=9,
    )
    drawn = np.concatenate([one_round(training(chosen, noise=PrivacyRandomness())).vector for _ in range(10)])
    assert 2.0 * 2 * 0.96 <= drawn.std() <= 2.0 * 2 * 1.04, "four steps of noise 2 each: no share is taken off"


def test_standardisation_centres_and_scales_the_features_of_private_patients():
    people = patients(20, 80)
    chosen = settings(
        method=Method.STANDARDISE,
        trainable="feature_norm",
        unlabelled_sampling_rate=1.0,
        unlabelled_clip_ratio=1.0,
        clipping_norm=50.0,
        expected_batch=100.0,
    )
    phase = training(chosen, people)
    model = start_of(phase)
    for round_number in range(1, 9):
        update = phase.train_round(round_number, model)
        model = standardised(model, torch.from_numpy(update.vector).float() / chosen.expected_batch)
    phase.train_round(9, model)
    images = torch.cat([people.read(key).images for stratum in Stratum for key in people.keys(stratum)])
    with torch.no_grad():
        features = phase.network.features(images) * phase.network.feature_norm.num_channels**0.5
    spread = features.std(0, unbiased=False)
    assert features.mean(0).abs().max() < 0.05
    assert 0.9 < spread.median() < 1.1


def test_equal_randomness_gives_equal_rounds_and_fresh_randomness_does_not():
    chosen = settings(labelled_sampling_rate=0.5)
    people = patients(40, 0)
    phase = training(chosen, people)
    start = start_of(phase)
    same = [phase.train_round(1, start, randomness=RoundRandomness(KEY)).values for _ in range(2)]
    fresh = [phase.train_round(1, start).values for _ in range(2)]
    assert np.array_equal(*same)
    assert not np.array_equal(*fresh)


def test_sampling_is_poisson():
    keys = [f"p{i}" for i in range(50)]
    rate, rounds = 0.2, 2000
    counts = np.zeros(len(keys))
    sizes = []
    for _ in range(rounds):
        sampled = RoundRandomness().sampled(keys, sampling_rate=rate, step=0)
        sizes.append(len(sampled))
        counts[[int(key[1:]) for key in sampled]] += 1
    expected = rounds * rate
    chi_square = ((counts - expected) ** 2 / (expected * (1 - rate))).sum()
    assert 20 < chi_square < 95, "50 degrees of freedom; both bounds are beyond 99.99 %"
    # A fixed batch size would have no variance; independent draws have n q (1 - q) = 8.
    assert 6.5 < np.var(sizes) < 9.5


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, 30)])
def test_sampling_rates_of_none_and_all_are_exact(rate, expected):
    keys = [f"p{i}" for i in range(30)]
    assert len(RoundRandomness().sampled(keys, sampling_rate=rate, step=0)) == expected


def test_a_bad_model_is_refused_before_any_patient_is_read():
    class NobodyMayLook:
        def keys(self, stratum):
            raise AssertionError("patients were asked for")

    phase = training(settings(), NobodyMayLook())
    with pytest.raises(WeightsInvalidError):
        phase.train_round(1, torch.full_like(start_of(phase), float("nan")))


@pytest.mark.parametrize(
    "changes",
    [
        {"labelled_sampling_rate": 1.5},
        {"labelled_sampling_rate": float("nan")},
        {"clipping_norm": 0.0},
        {"unlabelled_clip_ratio": 1.5},
        {"noise_multiplier": 0.0},
        {"local_steps": 2},
        {"proximal_weight": 0.1},
        {"class_weights": (1.0,)},
        {"class_weights": (1.0, 1.5)},
        {"method": Method.MEAN_TEACHER},
        {"method": Method.STANDARDISE},
        {"method": Method.STANDARDISE, "trainable": "feature_norm", "placement": Placement.LOCAL},
        {"task": Task.SEGMENTATION, "method": Method.FIXMATCH},
        {"views_per_scan": 0},
    ],
    ids=str,
)
def test_settings_against_reason_are_refused(changes):
    with pytest.raises(PlanInvalidError):
        settings(**changes)


def test_a_private_phase_needs_a_source_of_noise():
    network = build_network("small_cnn", dimensions=2, classes=2, width=4)
    with pytest.raises(ValueError, match="source of noise"):
        PrivateTraining(network, patients(), settings(), noise=None)


def test_training_without_privacy_neither_clips_nor_adds_noise():
    phase = training(settings(placement=Placement.NONE, noise_multiplier=0.0, clipping_norm=1e-6), patients(3, 0))
    assert np.linalg.norm(one_round(phase).vector) > 0.1


def test_only_the_trainable_part_changes():
    phase = training(settings(trainable="head", placement=Placement.LOCAL))
    order = layout(phase.network, ["encoder", "feature_norm"])
    before = flatten(phase.network, order)
    assert one_round(phase).values.any()
    assert torch.equal(flatten(phase.network, order), before)
