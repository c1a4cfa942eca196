"""Mergeable counts: what sites add up so that nobody needs anybody's scores.

Each validation patient contributes one vector; sites add their patients, secure aggregation adds the sites, noise
comes on top. The vector's norm is stated, because the noise is scaled by it.

    classification   confusion table (true, answered), score histograms (class, true or not, bin), confidence bins
    multi-label      score histograms (label, true or not, bin)
    segmentation     sum of Dice and number of patients that have one, for each foreground class

Bins are public and equal: score s in [0, 1] falls into bin min(floor(s B), B - 1). A patient's scans are averaged.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]

# Counts travel as integers of 1 / 1024: fine for Dice, and for noise shares of 2^10 grid units (docs/privacy.md).
UNITS_PER_PATIENT = 1024


class CountKind(StrEnum):
    """Which counts a task has."""

    CLASSIFICATION = "classification"
    MULTI_LABEL = "multi_label"
    SEGMENTATION = "segmentation"


@dataclass(frozen=True)
class CountLayout:
    """Where each count lies in the vector; part of the plan, so equal at every site.

    ``classes``: classes of the task; segmentation counts those after the first (background); two exclusive classes have
    one histogram, that of the second class. ``bins``: B, at least 2.
    """

    kind: CountKind
    classes: int
    bins: int

    @property
    def scored(self) -> int:
        """Number of classes with a histogram (or a Dice sum)."""
        if self.kind is CountKind.MULTI_LABEL:
            return self.classes
        return 1 if self.classes == 2 else self.classes - (self.kind is CountKind.SEGMENTATION)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each table, in the order of the vector."""
        if self.kind is CountKind.SEGMENTATION:
            return {"dice": (self.scored,), "present": (self.scored,)}
        histograms: dict[str, tuple[int, ...]] = {"histograms": (self.scored, 2, self.bins)}
        if self.kind is CountKind.MULTI_LABEL:
            return histograms
        return {"confusion": (self.classes, self.classes), **histograms, "confidence": (2, self.bins)}

    @property
    def length(self) -> int:
        """Length of the vector."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def patient_norm(self) -> float:
        """Largest Euclidean norm of one patient's vector, in patients.

        Classification: one confusion cell, one cell of each histogram, one confidence cell. Multi-label: one cell a
        label. Segmentation: Dice <= 1 and present = 1 for each class.
        """
        extra = {CountKind.CLASSIFICATION: 2, CountKind.MULTI_LABEL: 0, CountKind.SEGMENTATION: self.scored}
        return math.sqrt(self.scored + extra[self.kind])

    def tables(self, vector: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return named views into ``vector`` (length,). Raises: ValueError for another length."""
        if vector.shape != (self.length,):
            raise ValueError(f"counts have shape {vector.shape}; this layout needs ({self.length},)")
        tables, offset = {}, 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            tables[name] = vector[offset : offset + size].reshape(shape)
            offset += size
        return tables


@dataclass(frozen=True)
class AreaUnderCurve:
    """AUC of the union of all sites from a binned histogram.

    ``binning_error``: the exact AUC lies within value +- this when counts are exact; ``standard_error``: of sampling
    patients (Hanley & McNeil 1982) and of the noise together. ``positives``, ``negatives``: noised counts.
    """

    value: float
    binning_error: float
    standard_error: float
    positives: float
    negatives: float


def area_under_curve(histogram: Counts, *, noise_stddev: float = 0.0) -> AreaUnderCurve | None:
    """Return the AUC of one class from its histogram (2, bins): row 0 negatives, row 1 positives; None if one is empty.

    Mann-Whitney U with ties counted half:
        AUC = sum_b p_b (sum_{a<b} n_a + n_b / 2) / (P N);   |error by binning| <= sum_b p_b n_b / (2 P N)
    Negative counts (noise) are kept in the sums, which keeps the estimate nearly unbiased; totals below 1 give None.
    Source: Hanley & McNeil 1982 for the area and its standard error.
    """
    negatives, positives = histogram
    p, n = float(positives.sum()), float(negatives.sum())
    if p < 1 or n < 1:
        return None
    below = np.cumsum(negatives) - negatives / 2
    value = float(positives @ below) / (p * n)
    ties = float(np.maximum(positives, 0) @ np.maximum(negatives, 0)) / (2 * p * n)
    value = min(max(value, 0.0), 1.0)
    error = auc_standard_error(value, positives=p, negatives=n, bins=len(positives), noise_stddev=noise_stddev)
    return AreaUnderCurve(value, ties, error, p, n)


def auc_standard_error(
    value: float, *, positives: float, negatives: float, bins: int, noise_stddev: float = 0.0
) -> float:
    """Return the standard error of an AUC: that of the patients sampled, and that of noise on each histogram cell.

        patients:  Q1 = A / (2 - A),  Q2 = 2 A^2 / (1 + A)
                   var = (A (1 - A) + (P - 1)(Q1 - A^2) + (N - 1)(Q2 - A^2)) / (P N)
        noise:     each cell moves A by at most about (weight - A) / P (or / N), mean square <= 1 / 3:
                   var = stddev^2 bins (1 / P^2 + 1 / N^2) / 3
    Used by ``plan check`` beforehand with the declared counts. Source: Hanley & McNeil 1982; the noise term is ours.
    """
    a = value
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    patients = a * (1 - a) + (positives - 1) * (q1 - a * a) + (negatives - 1) * (q2 - a * a)
    noise = noise_stddev**2 * bins * (1 / positives**2 + 1 / negatives**2) / 3
    return math.sqrt(max(patients, 0.0) / (positives * negatives) + noise)


def sensitivities(confusion: Counts) -> Counts:
    """Return the share of each true class answered right: (classes, classes) -> (classes,); NaN for an empty class."""
    totals = confusion.sum(1)
    shares: Counts = np.divide(confusion.diagonal(), totals, out=np.full(len(totals), np.nan), where=totals >= 1)
    return shares


def balanced_accuracy(confusion: Counts) -> float:
    """Return the mean sensitivity of the classes that have patients, within [0, 1]; NaN if none has."""
    shares = sensitivities(confusion)
    return float(np.clip(np.nanmean(shares), 0, 1)) if np.isfinite(shares).any() else math.nan


def calibration_error(confidence: Counts) -> float:
    """Return the expected calibration error from (2, bins) counts of wrong (row 0) and right (row 1) answers.

    Each bin's share of right answers is compared with the bin's centre, weighted by its patients: exact to half a bin.
    NaN without patients. Source: Naeini et al. 2015.
    """
    counts = np.maximum(confidence, 0)
    totals = counts.sum(0)
    if totals.sum() < 1:
        return math.nan
    centres = (np.arange(len(totals)) + 0.5) / len(totals)
    shares = np.divide(counts[1], totals, out=centres.copy(), where=totals > 0)
    return float((np.abs(shares - centres) * totals).sum() / totals.sum())


def mean_dice(tables: dict[str, Counts]) -> Counts:
    """Return the mean Dice of each foreground class over the patients that have it; NaN where none has."""
    present = tables["present"]
    ratio: Counts = np.divide(tables["dice"], present, out=np.full(len(present), np.nan), where=present >= 1)
    clipped: Counts = np.clip(ratio, 0, 1)
    return clipped
