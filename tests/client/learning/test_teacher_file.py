"""A site that is started again in the middle of a phase goes on with the teacher it had."""

import numpy as np
import pytest
import torch

from client.learning.patients import UNKNOWN, ArrayPatients
from client.learning.private_training import PrivateTraining
from client.learning.round_randomness import RoundRandomness
from client.learning.teacher_file import keep_teacher, recall_teacher
from client.learning.training_settings import Method, Placement, Task, TrainingSettings
from client.private_gradients.settings import SpeedSettings
from common.networks.parameters import flatten, layout, load
from common.networks.registry import build_network

ROUNDS, PHASE = 4, 1
DECAYS = {"the last released model": 0.0, "an average of released models": 0.6, "the phase's first model": 1.0}


def new_training(decay, first_round=1, method=Method.TEACHER_STUDENT):
    """Training in a new process, whose first order is that of ``first_round``: its model is loaded, then it begins."""
    network = build_network("small_cnn", dimensions=2, classes=2, width=4, zero_head=False, seed=2)
    load(network, layout(network), released(first_round))
    images = np.random.default_rng(0).random((6, 8, 8)).astype(np.float32)
    labels = np.array([UNKNOWN] * 5 + [1])
    patients = ArrayPatients(images, labels, [f"p{i}" for i in range(6)], dimensions=2)
    chosen = TrainingSettings(
        task=Task.CLASSIFICATION,
        classes=2,
        dimensions=2,
        method=method,
        placement=Placement.NONE,
        labelled_sampling_rate=1.0,
        unlabelled_sampling_rate=0.0 if method is Method.SUPERVISED else 1.0,
        noise_multiplier=0.0,
        confidence_threshold=0.0,
        teacher_decay=decay,
    )
    return PrivateTraining(network, patients, chosen, noise=None, speed=SpeedSettings(engine="loop"))


def released(round_number):
    """The model that round brings: the models of two rounds in a row say the opposite for every scan."""
    network = build_network("small_cnn", dimensions=2, classes=2, width=4, zero_head=False, seed=round_number)
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([9.0, -9.0]) * (-1) ** round_number)
    return flatten(network, layout(network))


def one_round(training, number, path):
    randomness = RoundRandomness(number.to_bytes(32, "big"))
    update = training.train_round(number, released(number), randomness=randomness)
    keep_teacher(path, training, PHASE)
    network = training.teacher.network
    return update.values.tolist(), flatten(network, layout(network)).tolist()


@pytest.mark.parametrize("decay", DECAYS.values(), ids=DECAYS)
@pytest.mark.parametrize("stopped_after", [1, 3])
def test_restarted_training_answers_as_if_it_had_never_stopped(tmp_path, decay, stopped_after):
    through = new_training(decay)
    expected = [one_round(through, number, tmp_path / "through") for number in range(1, ROUNDS + 1)]
    path, training = tmp_path / "teachers" / "plan.safetensors", new_training(decay)
    found = [one_round(training, number, path) for number in range(1, stopped_after + 1)]
    training = new_training(decay, stopped_after + 1)  # another process: nothing is left but the file
    recall_teacher(path, training, PHASE)
    found += [one_round(training, number, path) for number in range(stopped_after + 1, ROUNDS + 1)]
    assert found == expected


def test_without_the_file_a_restart_would_show(tmp_path):
    through = new_training(1.0)
    expected = [one_round(through, number, tmp_path / "a") for number in (1, 2)]
    update, teacher = one_round(new_training(1.0, 2), 2, tmp_path / "b")
    assert update != expected[1][0]
    assert teacher != expected[1][1]


@pytest.mark.parametrize("decay", DECAYS.values(), ids=DECAYS)
def test_a_round_that_is_tried_again_does_not_move_the_teacher_twice(tmp_path, decay):
    path, training = tmp_path / "teacher", new_training(decay)
    one_round(training, 1, path)
    first = one_round(training, 2, path)
    assert one_round(training, 2, path) == first
    again = new_training(decay, 2)
    recall_teacher(path, again, PHASE)
    assert one_round(again, 2, path) == first


def test_the_teacher_of_another_phase_is_not_taken(tmp_path):
    path, training = tmp_path / "teacher", new_training(1.0)
    one_round(training, 1, path)
    other = new_training(1.0, 2)
    before = flatten(other.teacher.network, layout(other.teacher.network))
    recall_teacher(path, other, PHASE + 1)
    assert torch.equal(flatten(other.teacher.network, layout(other.teacher.network)), before)
    assert other.followed_round == 0


DAMAGE = {
    "nothing in it": lambda octets: b"",
    "cut off": lambda octets: octets[: len(octets) // 2],
    "another network's": lambda octets: octets[: -4 * 8],
    "not numbers": lambda octets: octets[:-4] + b"\x00\x00\xc0\x7f",
    "a header without end": lambda octets: b"\xff" * 8 + octets[8:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_noted_and_the_model_of_now_teaches(tmp_path, damage):
    path, training = tmp_path / "teacher", new_training(1.0)
    one_round(training, 1, path)
    path.write_bytes(damage(path.read_bytes()))
    fresh = new_training(1.0)
    recall_teacher(path, fresh, PHASE)
    assert fresh.followed_round == 0


def test_who_needs_no_teacher_writes_none(tmp_path):
    supervised = new_training(1.0, method=Method.SUPERVISED)
    assert supervised.teacher is None
    supervised.train_round(1, released(1))
    keep_teacher(tmp_path / "teacher", supervised, PHASE)
    recall_teacher(tmp_path / "teacher", supervised, PHASE)
    one_round(new_training(0.0), 1, tmp_path / "teacher")
    assert list(tmp_path.iterdir()) == []
