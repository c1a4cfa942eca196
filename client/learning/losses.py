"""Losses of one patient's scans: each maps a scan's output and target to one number and looks at nothing else.

Shapes everywhere: outputs (scans, ...), targets (scans, ...) -> losses (scans,) float32. The patient's loss sums
losses times weights prepared beforehand (``client.learning.lessons``), so padding and unconfident scans weigh 0.
All are safe under ``torch.func.vmap``: no branch on values, no operation in place.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from client.learning.patients import UNKNOWN

ScanLoss = Callable[[Tensor, Tensor], Tensor]

_SMOOTH: Final = 1.0  # pixels added to both sides of Dice, so that an empty class has Dice 1


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of (scans, classes) logits against (scans,) int64; ``UNKNOWN`` gives 0."""
    known = classes != UNKNOWN
    losses = functional.cross_entropy(logits.float(), torch.where(known, classes, 0), reduction="none")
    return losses * known


def several_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy over the known labels: logits and labels (scans, classes); ``UNKNOWN`` is left out."""
    known = (labels != UNKNOWN).float()
    targets = labels.clamp(min=0).float()
    losses = functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    return (losses * known).sum(1) / known.sum(1).clamp(min=1)


def dice_and_cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Per-image soft Dice loss (mean over foreground classes) plus per-voxel cross-entropy.

    logits (scans, classes, *size); classes (scans, *size) int64, ``UNKNOWN`` voxels are left out of both.
    Dice of one image, never of a batch: a batch Dice would mix patients. Source: Milletari et al. 2016.
    """
    known = (classes != UNKNOWN).float().flatten(1)
    target = torch.where(classes == UNKNOWN, 0, classes)
    entropy = functional.cross_entropy(logits.float(), target, reduction="none").flatten(1)
    mean_entropy = (entropy * known).sum(1) / known.sum(1).clamp(min=1)
    return mean_entropy + dice_losses(logits, classes).mean(1)


def dice_losses(logits: Tensor, classes: Tensor) -> Tensor:
    """Return 1 - soft Dice of each foreground class: shapes as above -> (scans, classes - 1)."""
    known = (classes != UNKNOWN).float().flatten(1)
    target = torch.where(classes == UNKNOWN, 0, classes)
    numbers = torch.arange(logits.shape[1], device=logits.device)
    chosen = (target.flatten(1).unsqueeze(1) == numbers[None, :, None]).float() * known.unsqueeze(1)
    shares = torch.softmax(logits.float(), 1).flatten(2) * known.unsqueeze(1)
    overlap = (2 * (shares * chosen).sum(2) + _SMOOTH) / (shares.sum(2) + chosen.sum(2) + _SMOOTH)
    return 1 - overlap[:, 1:]


def chosen_voxels(masks: Tensor, classes: Tensor) -> Tensor:
    """Sum of (scans, structures, *size) at the voxels of each structure: classes (scans, *size), ``UNKNOWN`` in none.

    Its gradient is the scan's label map, one-hot (``client.learning.mean_label_map``).
    """
    numbers = torch.arange(1, masks.shape[1] + 1, device=masks.device).view(1, -1, *[1] * (classes.ndim - 1))
    return (masks * (classes.unsqueeze(1) == numbers)).flatten(1).sum(1)


def consistency(confidence_threshold: float) -> ScanLoss:
    """Return the mean-teacher loss: squared difference of probabilities at voxels where the teacher is confident.

    targets: the teacher's probabilities (scans, classes, *size). The threshold is fixed by the plan: an adaptive one
    would carry information between patients. Source: Tarvainen & Valpola 2017.
    """

    def loss(logits: Tensor, teacher: Tensor) -> Tensor:
        confident = (teacher.amax(1) >= confidence_threshold).float().flatten(1)
        difference = (torch.softmax(logits.float(), 1) - teacher).square().sum(1).flatten(1)
        return (difference * confident).mean(1)

    return loss


def reconstruction(outputs: Tensor, images: Tensor) -> Tensor:
    """Mean squared error of (scans, channels, *size) against the unmasked images: the label-free task."""
    return (outputs.float() - images).square().flatten(1).mean(1)


def first_output(outputs: Tensor, _: Tensor) -> Tensor:
    """Return the first of (scans, 1 + classes) outputs: an unlabelled patient's (``second_moments``)."""
    return outputs[:, 0]


def products_with_labels(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the other outputs times centred labels (scans, classes): a labelled patient's."""
    return (outputs[:, 1:] * labels).sum(1)


def as_given(outputs: Tensor, _: Tensor) -> Tensor:
    """Return (scans,) outputs as they are: the network gives each scan's loss (``client.learning.feature_moments``)."""
    return outputs
