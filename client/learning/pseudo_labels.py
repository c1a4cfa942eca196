"""The teacher's answer for a scan without a label, and whether it is sure enough. One scan, one answer.

The threshold is the plan's constant. One that follows the batch, the class or the history (FlexMatch, FreeMatch,
SoftMatch) would let one patient change what another teaches, and is refused (docs/privacy.md section 3).
"""

from dataclasses import dataclass

from torch import Tensor

from client.learning.patients import UNKNOWN


@dataclass(frozen=True)
class PseudoLabels:
    """Labels from a teacher.

    Shapes: pseudo_label int64 (scans,), or (scans, classes) for several labels with ``UNKNOWN`` where unsure;
    confident bool (scans,).
    """

    pseudo_label: Tensor
    confident: Tensor


def one_class(probabilities: Tensor, confidence_threshold: float) -> PseudoLabels:
    """Take the most probable class; confident where its probability reaches the threshold: (scans, classes)."""
    top, pseudo_label = probabilities.max(1)
    return PseudoLabels(pseudo_label, top >= confidence_threshold)


def several_classes(probabilities: Tensor, confidence_threshold: float) -> PseudoLabels:
    """Answer each class on its own: 1 from the threshold up, 0 from its mirror image down, else ``UNKNOWN``."""
    yes = probabilities >= confidence_threshold
    no = probabilities <= 1 - confidence_threshold
    pseudo_label = yes.long().masked_fill(~(yes | no), UNKNOWN)
    return PseudoLabels(pseudo_label, (yes | no).any(1))
