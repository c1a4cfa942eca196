"""Losses of a label map, as the plan chooses: Dice, cross-entropy or focal loss, with a weight for each class.

    entropy part of a scan   = sum_v w(v) f(v) / sum_v w(v)      over known voxels v of true class k(v)
                               w(v) = weight of class k(v);  f = -log p  (ce),  -(1 - p)^2 log p  (focal);  p of k(v)
    Dice part                = sum_k w_k (1 - Dice_k) / sum_k w_k      over the foreground classes

Shapes, and what a loss must not do: as in ``client.learning.losses``. Sources: Milletari et al. 2016; Lin et al. 2017,
with their focus of 2; Zhu et al. 2019.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from client.learning.losses import ScanLoss, dice_and_cross_entropy, dice_losses
from client.learning.patients import UNKNOWN
from common.plan.phases import Loss

FOCUS: Final = 2
_LEAST_WEIGHT: Final = 1e-12  # of a scan: one without a known voxel has no loss


def voxel_loss(loss: Loss, class_weights: Sequence[float] = ()) -> ScanLoss:
    """Return the loss of label maps. ``class_weights``: one a class, background first; empty: all alike."""
    weights = tuple(class_weights)
    if loss is Loss.DICE_CE and not weights:
        return dice_and_cross_entropy

    def entropy(logits: Tensor, classes: Tensor) -> Tensor:
        return _entropy(logits, classes, weights)

    def dice_and_entropy(logits: Tensor, classes: Tensor) -> Tensor:
        return _entropy(logits, classes, weights) + _dice(logits, classes, weights)

    def dice_and_focal(logits: Tensor, classes: Tensor) -> Tensor:
        return _entropy(logits, classes, weights, focus=FOCUS) + _dice(logits, classes, weights)

    return {Loss.CE: entropy, Loss.DICE_CE: dice_and_entropy, Loss.DICE_FOCAL: dice_and_focal}[loss]


def _entropy(logits: Tensor, classes: Tensor, weights: tuple[float, ...], *, focus: int = 0) -> Tensor:
    target = torch.where(classes == UNKNOWN, 0, classes)
    entropy = functional.cross_entropy(logits.float(), target, reduction="none").flatten(1)
    if focus:
        entropy = entropy * (1 - torch.exp(-entropy)) ** focus
    each = (classes != UNKNOWN).float().flatten(1)
    if weights:
        each = each * torch.tensor(weights, device=logits.device)[target].flatten(1)
    return (entropy * each).sum(1) / each.sum(1).clamp(min=_LEAST_WEIGHT)


def _dice(logits: Tensor, classes: Tensor, weights: tuple[float, ...]) -> Tensor:
    found = dice_losses(logits, classes)
    if not weights:
        return found.mean(1)
    structures = torch.tensor(weights[1:], device=logits.device)
    return (found * structures).sum(1) / structures.sum()
