"""How the received model does on this site's held-out patients: counts, noised, never in clear.

A patient gives one vector of norm at most ``CountLayout.patient_norm`` (scans averaged first), rounded to the lattice
of 1 / 1024 patient *before* it is added: integers add exactly, so what a patient adds is the same whoever else is
there. The agent noises the sum like a gradient sum. Validation patients are patients: their budget is
``plan.evaluation.epsilon``.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.learning.patients import UNKNOWN, PatientScans
from common.privacy.metrics import UNITS_PER_PATIENT, CountKind, CountLayout, Counts


def count_patients(network: nn.Module, patients: Iterable[PatientScans], counts: CountLayout) -> NDArray[np.int64]:
    """Return the sum of the patients' vectors in units of 1 / 1024 patient: (counts.length,) int64.

    Edge cases: a patient without a labelled scan, or whose prediction is not finite, adds nothing.
    Guarantee: each patient moves the sum by a vector of norm at most 1024 ``counts.patient_norm`` and sqrt(length) / 2
    for the rounding, and what the others add is the same integers with and without that patient.
    """
    total = np.zeros(counts.length, np.int64)
    for patient in patients:
        vector = _patient_vector(network, patient, counts)
        if vector is not None:
            total += np.rint(vector * UNITS_PER_PATIENT).astype(np.int64)
    return total


def _patient_vector(network: nn.Module, patient: PatientScans, counts: CountLayout) -> Counts | None:
    known = patient.labelled
    if not bool(known.any()):
        return None
    labelled = patient.chosen(known.nonzero().squeeze(1))
    device = next(network.parameters()).device
    with torch.no_grad():
        logits = network(labelled.images.to(device)).float().cpu()
    if not bool(torch.isfinite(logits).all()):
        return None
    vector = np.zeros(counts.length)
    tables = counts.tables(vector)
    if counts.kind is CountKind.SEGMENTATION:
        _add_dice(tables, logits, labelled.labels)
    elif counts.kind is CountKind.MULTI_LABEL:
        _add_labels(tables, torch.sigmoid(logits).mean(0), labelled.labels)
    else:
        _add_class(tables, torch.softmax(logits, 1).mean(0), int(labelled.labels[0]))
    return vector


def _add_class(tables: dict[str, Counts], scores: Tensor, true_class: int) -> None:
    """Count a patient with one class; scans with different labels count under the first one's."""
    answered = int(scores.argmax())
    tables["confusion"][true_class, answered] += 1
    histograms = tables["histograms"]
    scored = range(1, 2) if len(histograms) == 1 else range(len(histograms))
    for row, index in enumerate(scored):
        histograms[row, int(true_class == index), _bin(scores[index], histograms.shape[2])] += 1
    confidence = tables["confidence"]
    confidence[int(answered == true_class), _bin(scores[answered], confidence.shape[1])] += 1


def _add_labels(tables: dict[str, Counts], scores: Tensor, labels: Tensor) -> None:
    """Count a patient with several labels: one holds if any scan has it, and is unknown if no scan knows."""
    present = labels.amax(0)
    histograms = tables["histograms"]
    for index, label in enumerate(present.tolist()):
        if label != UNKNOWN:
            histograms[index, int(label), _bin(scores[index], histograms.shape[2])] += 1


def _add_dice(tables: dict[str, Counts], logits: Tensor, label_maps: Tensor) -> None:
    """Add the patient's mean Dice for each foreground class that an expert or the network found in a scan.

    Dice = 2 |A and B| / (|A| + |B|) over known voxels.
    """
    answered = logits.argmax(1)
    known = label_maps != UNKNOWN
    for row in range(len(tables["dice"])):
        ours, theirs = (answered == row + 1) & known, label_maps == row + 1
        sizes = (ours.flatten(1).sum(1) + theirs.flatten(1).sum(1)).double()
        found = sizes > 0
        if bool(found.any()):
            overlap = (ours & theirs).flatten(1).sum(1).double()
            tables["dice"][row] += float((2 * overlap[found] / sizes[found]).mean())
            tables["present"][row] += 1


def _bin(score: Tensor, bins: int) -> int:
    return min(int(float(score) * bins), bins - 1)
