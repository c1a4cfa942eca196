"""What a network answers about one patient: all labelled scans, averaged, in blocks that bound the memory.

However many scans a patient has, no more than a block of them is in memory. The averages are sums in float64, so blocks
change them by rounding only. Used for the noised evaluation of a study and for a hospital's own exact figures.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from client.learning.logits import logits_of
from client.learning.patients import UNKNOWN, PatientScans, Scans
from client.learning.sliding_window import answered_label_map
from client.learning.whole_scan import Place


@dataclass(frozen=True)
class Answers:
    """One patient's mean probabilities and what is known of them.

    Shapes: scores (classes,) float64; labels (classes,) of several labels (1 if any scan has it, ``UNKNOWN`` if no
    scan knows), or () the class of the first labelled scan. ``is_finite``: whether every answer was a number.
    """

    scores: Tensor
    labels: Tensor
    is_finite: bool


def mean_answers(network: nn.Module, patient: Scans, *, several_labels: bool, most: int) -> Answers | None:
    """Return a patient's answers, ``most`` scans at a time; None without a labelled scan."""
    total, labels, count, is_finite = torch.zeros(0), torch.zeros(0), 0, True
    for part, logits in _answered(network, patient, most):
        scores = (torch.sigmoid(logits) if several_labels else torch.softmax(logits, 1)).double().sum(0)
        found = part.labels.amax(0) if several_labels else part.labels[0]
        if count == 0:
            total, labels = scores, found
        else:
            total, labels = total + scores, torch.maximum(labels, found) if several_labels else labels
        count += len(part)
        is_finite = is_finite and bool(torch.isfinite(logits).all())
    return Answers(total / count, labels, is_finite) if count else None


def mean_dice(
    network: nn.Module, patient: Scans, *, classes: int, most: int, window: Place = ()
) -> tuple[list[float | None], bool] | None:
    """Return the mean Dice of each foreground class over a patient's scans, and whether every answer was a number.

    Dice = 2 |A and B| / (|A| + |B|) over known voxels, of scans in which expert or network found the class; None where
    none has it. None in all without a labelled scan. ``window``: of a network that sees patches, their size
    (``sliding_window``): then one scan is in memory at a time.
    """
    totals, counts, seen, is_finite = [0.0] * (classes - 1), [0] * (classes - 1), 0, True
    maps = _label_maps_by_windows(network, patient, window) if window else _label_maps(network, patient, most)
    for answered, labels, numbers in maps:
        known = labels != UNKNOWN
        for row in range(classes - 1):
            ours, theirs = (answered == row + 1) & known, labels == row + 1
            sizes = (ours.flatten(1).sum(1) + theirs.flatten(1).sum(1)).double()
            overlap, found = (ours & theirs).flatten(1).sum(1).double(), sizes > 0
            totals[row] += float((2 * overlap[found] / sizes[found]).sum())
            counts[row] += int(found.sum())
        seen += len(labels)
        is_finite = is_finite and numbers
    means = [total / count if count else None for total, count in zip(totals, counts, strict=True)]
    return (means, is_finite) if seen else None


def _label_maps(network: nn.Module, patient: Scans, most: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Yield the answered and the experts' classes of some scans, and whether every answer was a number."""
    for part, logits in _answered(network, patient, most):
        yield logits.argmax(1), part.labels, bool(torch.isfinite(logits).all())


def _label_maps_by_windows(network: nn.Module, patient: Scans, window: Place) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Yield the same of one labelled scan after the other; classes stay in as few bits as they have."""
    for index in range(len(patient)):
        scan = patient.as_it_lies(index)
        if scan is not None and scan.labels is not None and scan.labelled:
            answered, is_finite = answered_label_map(network, scan, window)
            yield torch.from_numpy(answered).unsqueeze(0), torch.from_numpy(scan.labels).unsqueeze(0), is_finite
        scan = None  # before the next is read


def answered_scans(
    network: nn.Module, patient: Scans, *, most: int, window: Place = ()
) -> Iterator[tuple[Callable[[], Tensor], Tensor, Tensor]]:
    """Yield each labelled scan: what gives its image in [0, 1], and the answered and the expert's class of each voxel.

    Shapes: image (channels, *size); classes (*size). ``window``: as for ``mean_dice``; an image is made when asked for.
    """
    if not window:
        for part, logits in _answered(network, patient, most):
            for row, labels in enumerate(part.labels):
                yield partial(part.unchanged.__getitem__, row), logits[row].argmax(0), labels
        return
    for index in range(len(patient)):
        scan = patient.as_it_lies(index)
        if scan is not None and scan.labels is not None and scan.labelled:
            answered, _ = answered_label_map(network, scan, window)
            image = partial(scan.image_part, (0,) * len(scan.size), scan.size)
            yield image, torch.from_numpy(answered), torch.from_numpy(scan.labels)
        scan = None  # before the next is read


def _answered(network: nn.Module, patient: Scans, most: int) -> Iterator[tuple[PatientScans, Tensor]]:
    """Yield the labelled scans of each block with the network's logits, float32 in main memory."""
    device = next((weights.device for weights in network.parameters()), torch.device("cpu"))
    for block in patient.blocks(most):
        part = block.chosen(block.labelled.nonzero().squeeze(1))
        if len(part):
            yield part, logits_of(network, part.unchanged.to(device)).cpu()
