"""What a segmentation is worth that looks at no scan: the mean label map. Every Dice stands beside it.

    answer(v) = argmax_k  w_k share_k(v)      share_k: of the labelled training volumes with class k at voxel v

w is 1 for the background; for the structures it is the one of ``WEIGHTS`` with the best mean Dice on those very
volumes, so that the comparison is not an easy one. A simulation takes every hospital's label maps, a hospital its own.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import torch
from torch import Tensor

from client.dicom.record import Stratum
from client.learning.patients import UNKNOWN, Patients

WEIGHTS: Final = (0.7, 0.85, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0)


def mean_label_map(patients: Mapping[str, Patients], *, classes: int) -> Tensor | None:
    """Return the atlas (*size) int64 of the training patients' label maps; None where no label map is whole.

    Read twice, one patient at a time: memory for a patient's label maps and ``WEIGHTS`` answers is enough.
    """
    totals, count = torch.zeros(0), 0
    for label_map in _label_maps(patients):
        present = torch.stack([label_map == index for index in range(classes)])
        totals = present.float() if count == 0 else totals + present
        count += 1
    if count == 0:
        return None
    shares = totals / count
    answers = [torch.cat([shares[:1], weight * shares[1:]]).argmax(0) for weight in WEIGHTS]
    dice = torch.zeros(len(answers), dtype=torch.float64)
    for label_map in _label_maps(patients):
        dice += torch.tensor([_dice(answer, label_map, classes) for answer in answers], dtype=torch.float64)
    return answers[int(dice.argmax())]


def _label_maps(patients: Mapping[str, Patients]) -> Iterator[Tensor]:
    for site in patients.values():
        for key in site.keys(Stratum.LABELLED):
            for label_map in site.read(key).whole().labels:
                if not bool((label_map == UNKNOWN).any()):
                    yield label_map


def _dice(answer: Tensor, label_map: Tensor, classes: int) -> float:
    found = 0.0
    for index in range(1, classes):
        ours, theirs = answer == index, label_map == index
        found += 2 * int((ours & theirs).sum()) / max(1, int(ours.sum() + theirs.sum()))
    return found / (classes - 1)
