"""The plan's loss of label maps is what its name says: against torch and MONAI, class weights honoured in each."""

import pytest
import torch
from monai.losses import DiceLoss, FocalLoss

from client.learning.losses import dice_and_cross_entropy
from client.learning.patients import UNKNOWN
from client.learning.voxel_losses import voxel_loss
from common.plan.phases import Loss

WEIGHTS = (0.1, 1.0, 0.4)
LOGITS = 2 * torch.randn(1, 3, 6, 7, 5, generator=torch.Generator().manual_seed(3))
CLASSES = torch.randint(0, 3, (1, 6, 7, 5), generator=torch.Generator().manual_seed(4))


def entropy_of_torch(weights=None):
    loss = torch.nn.CrossEntropyLoss(weight=None if weights is None else torch.tensor(weights))
    return float(loss(LOGITS, CLASSES))


def dice_of_monai(weights=(1.0, 1.0, 1.0)):
    loss = DiceLoss(
        include_background=False, softmax=True, to_onehot_y=True, smooth_nr=1.0, smooth_dr=1.0, reduction="none"
    )
    each = loss(LOGITS, CLASSES[:, None]).flatten()
    structures = torch.tensor(weights[1:])
    return float((each * structures).sum() / structures.sum())


def focal_of_monai():
    loss = FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2.0, reduction="none")
    return float(loss(LOGITS, CLASSES[:, None]).sum(1).mean())


ORACLES = {
    "cross-entropy alone": (Loss.CE, (), entropy_of_torch),
    "cross-entropy, weighted": (Loss.CE, WEIGHTS, lambda: entropy_of_torch(WEIGHTS)),
    "both": (Loss.DICE_CE, (), lambda: entropy_of_torch() + dice_of_monai()),
    "both, weighted": (Loss.DICE_CE, WEIGHTS, lambda: entropy_of_torch(WEIGHTS) + dice_of_monai(WEIGHTS)),
    "Dice and focal": (Loss.DICE_FOCAL, (), lambda: focal_of_monai() + dice_of_monai()),
}


@pytest.mark.parametrize(("loss", "weights", "oracle"), ORACLES.values(), ids=ORACLES)
def test_a_loss_is_what_torch_and_monai_say(loss, weights, oracle):
    assert voxel_loss(loss, weights)(LOGITS, CLASSES).item() == pytest.approx(oracle(), rel=1e-5)


def test_plans_of_before_have_the_very_loss_of_before():
    assert voxel_loss(Loss.DICE_CE) is dice_and_cross_entropy


@pytest.mark.parametrize("loss", Loss)
def test_equal_weights_weigh_nothing_and_unknown_voxels_are_left_out(loss):
    alike = voxel_loss(loss, (0.5, 0.5, 0.5))(LOGITS, CLASSES).item()
    assert alike == pytest.approx(voxel_loss(loss)(LOGITS, CLASSES).item(), rel=1e-5)
    hidden = CLASSES.clone()
    hidden[:, 3:] = UNKNOWN
    seen = voxel_loss(loss, WEIGHTS)(LOGITS[:, :, :3], CLASSES[:, :3]).item()
    assert voxel_loss(loss, WEIGHTS)(LOGITS, hidden).item() == pytest.approx(seen, rel=1e-5)


@pytest.mark.parametrize("loss", Loss)
def test_a_scan_that_nobody_labelled_moves_nothing(loss):
    logits = LOGITS.clone().requires_grad_()
    voxel_loss(loss, WEIGHTS)(logits, torch.full_like(CLASSES, UNKNOWN)).sum().backward()
    assert not logits.grad.any()
