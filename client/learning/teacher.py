"""The teacher: a copy of the network whose weights follow the released models. It costs no privacy.

Released models are public, and an average of public values is public (post-processing). The teacher never sees a
gradient, and it answers for one scan from that scan alone.
"""

import copy

import torch
from torch import Tensor, nn

from client.learning.logits import logits_of
from common.networks.parameters import Layout


class Teacher:
    """An exponential average of the released models: teacher <- decay * teacher + (1 - decay) * released.

    ``decay`` 1: the phase's first model for ever (teacher and student); 0: the last released model (FixMatch).
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False)
        self._decay = decay

    def follow(self, order: Layout, released: nn.Module) -> None:
        """Move towards the released model that ``released`` holds, in the parameters of the phase's layout."""
        own, new = dict(self.network.named_parameters()), dict(released.named_parameters())
        with torch.no_grad():
            for entry in order.entries:
                own[entry.name].lerp_(new[entry.name].to(own[entry.name]), 1 - self._decay)

    def probabilities(self, images: Tensor, *, several_labels: bool = False) -> Tensor:
        """Return class probabilities: (scans, channels, *size) -> (scans, classes) or (scans, classes, *size) float32.

        ``several_labels``: each class on its own (sigmoid) instead of one class of all (softmax). Scans are answered
        one at a time: a kernel's arithmetic may follow the batch, and a confidence next to the threshold, or a network
        made for it, would turn the last bit of an answer into another label.
        """
        answers = [self._answer(image, several_labels=several_labels) for image in torch.split(images, 1)]
        return torch.cat(answers)

    def _answer(self, image: Tensor, *, several_labels: bool) -> Tensor:
        """Answer for one scan alone: (1, channels, *size) -> (1, classes, ...)."""
        logits = logits_of(self.network, image)
        return torch.sigmoid(logits) if several_labels else torch.softmax(logits, 1)


def good_enough(teacher: Teacher, images: Tensor, classes: Tensor, *, least_balanced_accuracy: float) -> bool:
    """Return whether the teacher's balanced accuracy on *public* images reaches the gate.

    Where it is below about 0.7 to 0.8 pseudo-labels hurt (docs/privacy.md). Balanced accuracy is the mean over classes
    present of the share answered right; private images must not be used here without a budget.
    Shapes: images (n, channels, *size), classes (n,) int64. No images: the gate is shut.
    """
    if least_balanced_accuracy == 0:
        return True
    if len(images) == 0:
        return False
    answers = teacher.probabilities(images).argmax(1)
    shares = [float((answers[classes == index] == index).float().mean()) for index in torch.unique(classes)]
    return sum(shares) / len(shares) >= least_balanced_accuracy
