"""Losses: one number a scan, known values, nothing from a neighbour, usable under vmap."""

import math

import pytest
import torch
from torch.func import grad, vmap

from client.learning import losses
from client.learning.patients import UNKNOWN
from client.learning.voxel_losses import voxel_loss
from common.plan.phases import Loss


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)


CASES = {
    "cross entropy": (losses.cross_entropy, random(5, 3), torch.tensor([0, 1, 2, UNKNOWN, 1])),
    "several labels": (
        losses.several_labels,
        random(5, 3),
        torch.tensor([[0, 1, 1], [UNKNOWN, 1, 0], [1, 1, 1], [UNKNOWN] * 3, [0, 0, 0]]),
    ),
    "dice and cross entropy": (
        losses.dice_and_cross_entropy,
        random(5, 3, 4, 4),
        torch.arange(80).reshape(5, 4, 4) % 4 - 1,
    ),
    **{
        f"{loss} weighted": (
            voxel_loss(loss, (0.2, 1.0, 0.5)), random(5, 3, 4, 4), torch.arange(80).reshape(5, 4, 4) % 4 - 1,
        )
        for loss in Loss
    },
    "consistency": (losses.consistency(0.5), random(5, 3, 4, 4), torch.softmax(3 * random(5, 3, 4, 4), 1)),
    "reconstruction": (losses.reconstruction, random(5, 1, 4, 4), random(5, 1, 4, 4) + 1),
    "as given": (losses.as_given, random(5), torch.zeros(5)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_scan_has_one_finite_loss_that_ignores_its_neighbours(case):
    loss, outputs, targets = CASES[case]
    together = loss(outputs, targets)
    alone = torch.cat([loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(5)])
    assert together.shape == (5,)
    assert bool(torch.isfinite(together).all())
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("case", CASES)
def test_gradients_under_vmap_equal_those_one_by_one(case):
    loss, outputs, targets = CASES[case]

    def one(output, target):
        return loss(output.unsqueeze(0), target.unsqueeze(0)).sum()

    batched = vmap(grad(one))(outputs, targets)
    single = torch.stack([grad(one)(output, target) for output, target in zip(outputs, targets, strict=True)])
    torch.testing.assert_close(batched, single)


def test_an_unknown_label_has_no_loss_and_no_gradient():
    for loss, outputs, unknown in (
        (losses.cross_entropy, random(1, 3), torch.tensor([UNKNOWN])),
        (losses.several_labels, random(1, 3), torch.full((1, 3), UNKNOWN)),
    ):
        outputs.requires_grad_()
        value = loss(outputs, unknown).sum()
        value.backward()
        assert value == 0
        assert not outputs.grad.any()


def test_known_values():
    assert losses.cross_entropy(torch.zeros(1, 4), torch.tensor([2])).item() == pytest.approx(math.log(4))
    assert losses.several_labels(torch.zeros(1, 2), torch.tensor([[1, UNKNOWN]])).item() == pytest.approx(math.log(2))
    perfect = torch.tensor([[[[100.0, -100.0]], [[-100.0, 100.0]]]])
    assert losses.dice_and_cross_entropy(perfect, torch.tensor([[[0, 1]]])).item() == pytest.approx(0, abs=1e-6)
    # No voxel of class 1 in truth, half of two voxels predicted: Dice = (0 + 1) / (1 + 0 + 1) = 1/2; entropy ln 2.
    even = torch.zeros(1, 2, 1, 2)
    found = losses.dice_and_cross_entropy(even, torch.tensor([[[0, 0]]])).item()
    assert found == pytest.approx(0.5 + math.log(2))


def test_consistency_counts_confident_voxels_only():
    teacher = torch.tensor([[[[0.9, 0.6]], [[0.1, 0.4]]]])
    student = torch.zeros(1, 2, 1, 2)  # 1/2 everywhere
    assert losses.consistency(0.8)(student, teacher).item() == pytest.approx(2 * 0.4**2 / 2)
    assert losses.consistency(0.95)(student, teacher).item() == 0
