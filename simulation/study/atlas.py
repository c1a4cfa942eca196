"""What a segmentation is worth that looks at no scan: the hospitals' mean label map. Every Dice stands beside it.

    answer(v) = argmax_k  w_k share_k(v)      share_k: of the labelled training volumes with class k at voxel v

w is 1 for the background; for the structures it is the one of ``WEIGHTS`` with the best mean Dice on those very
volumes, so that the comparison is not an easy one. Only a simulation can do this: it sees every hospital's label maps.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor

from client.dicom.record import Stratum
from client.learning.patients import UNKNOWN, Patients

WEIGHTS: Final = (0.7, 0.85, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0)


def mean_label_map(patients: Mapping[str, Patients], *, classes: int) -> Tensor | None:
    """Return the atlas (*size) int64 of the training patients' label maps; None where no label map is whole."""
    label_maps = [label_map for site in patients.values() for label_map in _label_maps(site)]
    if not label_maps:
        return None
    stacked = torch.stack(label_maps)
    shares = torch.stack([(stacked == index).float().mean(0) for index in range(classes)])
    answers = [torch.cat([shares[:1], weight * shares[1:]]).argmax(0) for weight in WEIGHTS]
    return max(answers, key=lambda answer: _mean_dice(answer, stacked, classes))


def _label_maps(site: Patients) -> Iterable[Tensor]:
    for key in site.keys(Stratum.LABELLED):
        for label_map in site.read(key).whole().labels:
            if not bool((label_map == UNKNOWN).any()):
                yield label_map


def _mean_dice(answer: Tensor, label_maps: Tensor, classes: int) -> float:
    found = []
    for index in range(1, classes):
        ours, theirs = answer == index, label_maps == index
        sizes = ours.sum() + theirs.flatten(1).sum(1)
        found.append((2 * (ours & theirs).flatten(1).sum(1) / sizes.clamp(min=1)).mean())
    return float(torch.stack(found).mean())
