"""The teacher follows released models only, and answers for one scan from that scan alone."""

import pytest
import torch

from client.learning.patients import UNKNOWN
from client.learning.pseudo_labels import one_class, several_classes
from client.learning.teacher import Teacher, good_enough
from common.networks.parameters import flatten, layout, load
from common.networks.registry import build_network


def network():
    return build_network("small_cnn", dimensions=2, classes=2, width=4, zero_head=False, seed=5)


@pytest.mark.parametrize(("decay", "expected"), [(1.0, 0.0), (0.0, 1.0), (0.75, 0.25)])
def test_the_teacher_is_an_exponential_average_of_released_models(decay, expected):
    model = network()
    order = layout(model)
    start = flatten(model, order)
    teacher = Teacher(model, decay=decay)
    load(model, order, start + 1)
    teacher.follow(order, model)
    torch.testing.assert_close(flatten(teacher.network, order), start + expected)


def test_the_teacher_is_a_copy_and_never_learns():
    model = network()
    teacher = Teacher(model, decay=1.0)
    with torch.no_grad():
        model.head.weight += 1
    assert not torch.equal(teacher.network.head.weight, model.head.weight)
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


def test_the_answer_for_a_scan_is_bit_identical_whoever_is_beside_it():
    teacher = Teacher(network(), decay=1.0)
    scans = torch.rand(40, 1, 13, 11, generator=torch.Generator().manual_seed(0))
    together = teacher.probabilities(scans)
    alone = torch.cat([teacher.probabilities(scan[None]) for scan in scans])
    shifted = teacher.probabilities(scans[3:])
    assert torch.equal(together, alone)
    assert torch.equal(together[3:], shifted)


def test_pseudo_labels_are_confident_from_the_threshold_on():
    probabilities = torch.tensor([[0.95, 0.05], [0.06, 0.94], [0.5, 0.5]])
    found = one_class(probabilities, 0.95)
    assert found.pseudo_label.tolist() == [0, 1, 0]
    assert found.confident.tolist() == [True, False, False]


def test_several_labels_are_answered_one_by_one():
    found = several_classes(torch.tensor([[0.95, 0.5, 0.02], [0.5, 0.6, 0.4]]), 0.9)
    assert found.pseudo_label.tolist() == [[1, UNKNOWN, 0], [UNKNOWN] * 3]
    assert found.confident.tolist() == [True, False]


def test_the_gate_looks_at_balanced_accuracy_not_at_the_majority():
    teacher = Teacher(network(), decay=1.0)
    images = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    answers = teacher.probabilities(images).argmax(1)
    majority = int(answers.mode().values)
    truth = answers.clone()
    truth[(answers == majority).nonzero()[0]] = 1 - majority
    assert good_enough(teacher, images, answers, least_balanced_accuracy=1.0)
    rare_class_wrong = torch.full_like(answers, majority)
    rare_class_wrong[:2] = 1 - majority
    keep = torch.cat([(answers == majority).nonzero().squeeze(1)[:20]])
    truth = torch.full((len(keep),), majority)
    truth[0] = 1 - majority  # 19 of 20 right, but none of the other class
    assert not good_enough(teacher, images[keep], truth, least_balanced_accuracy=0.6)


def test_no_gate_is_always_open_and_a_gate_without_images_is_shut():
    teacher = Teacher(network(), decay=1.0)
    nothing = torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64)
    assert good_enough(teacher, *nothing, least_balanced_accuracy=0.0)
    assert not good_enough(teacher, *nothing, least_balanced_accuracy=0.5)
