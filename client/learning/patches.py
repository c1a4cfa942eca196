"""Parts of a patient's scans, where a whole one is too large to train on (``image.patch_px`` of the plan).

    patch i of a patient   = from scan i mod n of the n that were chosen
    its place              = with chance ``foreground_share``, where experts drew anything: centred on a voxel of a
                             class that is there, every class as likely, every voxel of it as likely
                             otherwise: anywhere, every place as likely

All patches of a patient are rows of one gradient, which is clipped once: the unit of privacy is the patient, as ever.
Each patch has a generator of its own, of this patient and this step, so no draw depends on anything else.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.learning.patch_rule import PatchRule
from client.learning.patients import PatientScans, Scans
from client.learning.round_randomness import PatientRandomness
from client.learning.whole_scan import Place, WholeScan


def taken_of(
    scans: Scans, chosen: Tensor, rule: PatchRule | None, randomness: PatientRandomness, *, classes: int
) -> PatientScans | None:
    """Return what a patient is trained on in a step: the chosen scans, or with a rule patches of them."""
    return patches_of(scans, chosen, rule, randomness, classes=classes) if rule else scans.chosen(chosen)


def patches_of(
    scans: Scans, chosen: Tensor, rule: PatchRule, randomness: PatientRandomness, *, classes: int
) -> PatientScans | None:
    """Return a patient's patches as scans of their own; one whole scan is in memory at a time.

    ``chosen``: (n,) int64, scans in the order in which patches are taken of them. None where there is none to take
    patches of.
    """
    taken = chosen[: rule.count].tolist()
    parts = [
        part
        for place, index in enumerate(taken)
        for part in _of_one_scan(
            scans.as_it_lies(index), range(place, rule.count, len(taken)), rule, randomness, classes=classes
        )
    ]
    if not parts:
        return None
    images, labels = zip(*parts, strict=True)
    return PatientScans(torch.stack(images), torch.stack(labels))


def _of_one_scan(
    scan: WholeScan | None, numbers: range, rule: PatchRule, randomness: PatientRandomness, *, classes: int
) -> list[tuple[Tensor, Tensor]]:
    """Return the patches of these numbers; nothing of a scan that cannot be read, or is smaller than a patch."""
    if scan is None or len(scan.size) != len(rule.size_px) or any(np.less(scan.size, rule.size_px)):
        return []
    corners = [patch_corner(scan, rule, randomness.generator(f"patch {number}"), classes=classes) for number in numbers]
    return [(scan.image_part(corner, rule.size_px), scan.label_part(corner, rule.size_px)) for corner in corners]


def patch_corner(scan: WholeScan, rule: PatchRule, generator: torch.Generator, *, classes: int) -> Place:
    """Draw where a patch begins; it lies within the scan."""
    room = [have - want for have, want in zip(scan.size, rule.size_px, strict=True)]
    on_foreground = float(torch.rand((), generator=generator, dtype=torch.float64)) < rule.foreground_share
    voxel = _foreground_voxel(scan.labels, generator, classes) if on_foreground and scan.labels is not None else None
    if voxel is None:
        return tuple(_drawn(most + 1, generator) for most in room)
    return tuple(
        min(max(centre - side // 2, 0), most) for centre, side, most in zip(voxel, rule.size_px, room, strict=True)
    )


def _foreground_voxel(labels: NDArray[np.integer], generator: torch.Generator, classes: int) -> Place | None:
    """Draw a class that is there and then a voxel of it; None where there is none. One slice after the other."""
    counts = np.stack([_counts(one, classes) for one in labels])  # (slices, classes)
    present = np.flatnonzero(counts.sum(0)[1:]) + 1
    if len(present) == 0:
        return None
    drawn = int(present[_drawn(len(present), generator)])
    behind = np.cumsum(counts[:, drawn])
    number = _drawn(int(behind[-1]), generator)
    place = int(np.searchsorted(behind, number, side="right"))
    within = number - (int(behind[place - 1]) if place else 0)
    inside = np.unravel_index(int(np.flatnonzero(labels[place] == drawn)[within]), labels.shape[1:])
    return (place, *map(int, inside))


def _counts(slice_of_labels: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Return how many voxels of one slice have each class; other numbers count for none."""
    numbers = slice_of_labels.astype(np.int64).reshape(-1) + 1
    counted = np.bincount(np.clip(numbers, 0, classes + 1), minlength=classes + 2)
    return counted[1 : classes + 1]


def _drawn(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(0, count, (), generator=generator))
