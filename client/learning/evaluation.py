"""How the received model does on this site's held-out patients: counts, noised, never in clear.

A patient gives one vector of norm at most ``CountLayout.patient_norm`` (scans averaged first), rounded to the lattice
of 1 / 1024 patient *before* it is added: integers add exactly, so what a patient adds is the same whoever else is
there. The agent noises the sum like a gradient sum. Validation patients are patients: their budget is
``plan.evaluation.epsilon``.
"""

import logging
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from client.learning.patient_answers import Answers, mean_answers, mean_dice
from client.learning.patients import UNKNOWN, Scans
from client.learning.whole_scan import Place
from common.faults import fault_without_text
from common.privacy.metrics import UNITS_PER_PATIENT, CountKind, CountLayout, Counts

SCANS_AT_ONCE = 4  # of one patient, where no plan says it

_log = logging.getLogger("fedward.trainer")


def count_patients(
    network: nn.Module,
    patients: Iterable[Scans],
    counts: CountLayout,
    *,
    scans_at_once: int = SCANS_AT_ONCE,
    window: Place = (),
) -> NDArray[np.int64]:
    """Return the sum of the patients' vectors in units of 1 / 1024 patient: (counts.length,) int64.

    ``scans_at_once``: how many scans of a patient are in memory beside one another. ``window``: of a segmentation by
    patches, their size (``client.learning.sliding_window``).
    Edge cases: a patient without a labelled scan, whose prediction is not finite, or whose record raises, adds nothing.
    Guarantee: each patient moves the sum by a vector of norm at most 1024 ``counts.patient_norm`` and sqrt(length) / 2
    for the rounding, and what the others add is the same integers with and without that patient.
    """
    total = np.zeros(counts.length, np.int64)
    for patient in patients:
        try:
            vector = _patient_vector(network, patient, counts, scans_at_once, window)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is this record's, and must not be seen)
            _log.warning("a held-out record that scoring cannot work with adds nothing: %s", fault_without_text(error))
            continue
        if vector is not None:
            total += np.rint(vector * UNITS_PER_PATIENT).astype(np.int64)
    return total


def _patient_vector(network: nn.Module, patient: Scans, counts: CountLayout, most: int, window: Place) -> Counts | None:
    vector = np.zeros(counts.length)
    tables = counts.tables(vector)
    if counts.kind is CountKind.SEGMENTATION:
        return vector if _add_dice(tables, network, patient, most, window) else None
    several = counts.kind is CountKind.MULTI_LABEL
    answers = mean_answers(network, patient, several_labels=several, most=most)
    if answers is None or not answers.is_finite:
        return None
    if several:
        _add_labels(tables, answers)
    else:
        _add_class(tables, answers.scores, int(answers.labels))
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


def _add_labels(tables: dict[str, Counts], answers: Answers) -> None:
    """Count a patient with several labels: one holds if any scan has it, and is unknown if no scan knows."""
    histograms = tables["histograms"]
    for index, label in enumerate(answers.labels.tolist()):
        if label != UNKNOWN:
            histograms[index, int(label), _bin(answers.scores[index], histograms.shape[2])] += 1


def _add_dice(tables: dict[str, Counts], network: nn.Module, patient: Scans, most: int, window: Place) -> bool:
    """Add the patient's mean Dice for each foreground class that an expert or the network found in a scan.

    Returns whether there is anything to count.
    """
    found = mean_dice(network, patient, classes=len(tables["dice"]) + 1, most=most, window=window)
    if found is None or not found[1]:
        return False
    for row, dice in enumerate(found[0]):
        if dice is not None:
            tables["dice"][row] += dice
            tables["present"][row] += 1
    return True


def _bin(score: Tensor, bins: int) -> int:
    return min(int(float(score) * bins), bins - 1)
