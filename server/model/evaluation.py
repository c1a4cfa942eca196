"""From summed, noised counts to what a person reads: AUC with interval, sensitivity, specificity, calibration, Dice.

The sums are those of the meta segment: counts of validation patients in units of 1 / 1024 patient, with each site's
noise inside (docs/privacy.md). Nothing here saw one site's counts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.plan.plan import StudyPlan
from common.plan.schedule import count_layout
from common.plan.selection import DICE_SPREAD, noise_stddev_of_counts
from common.privacy.metrics import (
    UNITS_PER_PATIENT,
    CountKind,
    CountLayout,
    Counts,
    area_under_curve,
    balanced_accuracy,
    calibration_error,
    mean_dice,
    sensitivities,
)
from server.model.score_bounds import why_void

_SOURCES: dict[str, Callable[[int], float]] = {}  # plan digest -> participants -> noise
Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Evaluation:
    """How a model does on the validation patients of all sites together.

    Attributes:
        score: what models are compared by: mean AUC of the classes (classification, multi-label), mean Dice
            (segmentation); NaN where too few patients are there. standard_error: of the score, noise included.
        interval: 95 % interval of the score, within [0, 1]. auc, dice: by class name.
        sensitivity: by class; for two classes also ``specificity``, the sensitivity of the normal class.
        calibration_error: expected calibration error. patients: noised number of validation patients.
        noise_stddev: of one count, in patients. tables: the noised counts, for curves. void: why these cannot be the
            counts of the declared patients (``server.model.score_bounds``); every figure is NaN then. Empty: they can.
    """

    score: float
    standard_error: float
    interval: tuple[float, float]
    patients: float
    noise_stddev: float
    auc: dict[str, dict[str, float]] = field(default_factory=dict)
    dice: dict[str, float] = field(default_factory=dict)
    sensitivity: dict[str, float] = field(default_factory=dict)
    specificity: float = math.nan
    balanced_accuracy: float = math.nan
    calibration_error: float = math.nan
    tables: dict[str, Counts] = field(default_factory=dict, repr=False)
    void: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as plain values for JSON: NaN becomes None, tables become lists."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


def evaluate(plan: StudyPlan, meta_sum: NDArray[np.uint64], participants: int) -> Evaluation:
    """Read the summed meta words of an evaluated round.

    Shapes: meta_sum (count_layout(plan).length,) uint64, sums modulo 2^64. ``participants``: sites in the sum, whose
    noise adds up.
    """
    layout = count_layout(plan)
    counts = meta_sum.view(np.int64) / UNITS_PER_PATIENT
    noise = count_noise_stddev(plan, participants)
    tables = layout.tables(counts)
    void = why_void(plan, tables, noise)
    if void:
        nothing = (math.nan, math.nan)
        return Evaluation(math.nan, math.nan, nothing, math.nan, noise_stddev=noise, tables=tables, void=void)
    if layout.kind is CountKind.SEGMENTATION:
        return _segmentation(plan, tables, noise)
    scores = _curves(plan, layout, tables["histograms"], noise)
    found = [auc["value"] for auc in scores.values()]
    error = _mean_error([auc["standard_error"] for auc in scores.values()])
    score = float(np.mean(found)) if found else math.nan
    found_auc = Evaluation(
        score, error, _interval(score, error), math.nan, noise_stddev=noise, auc=scores, tables=tables
    )
    if layout.kind is CountKind.MULTI_LABEL:
        return replace(found_auc, patients=float(tables["histograms"].sum((1, 2)).mean()))
    shares = sensitivities(tables["confusion"])
    return replace(
        found_auc,
        patients=float(tables["confusion"].sum()),
        sensitivity=dict(zip(plan.task.classes, map(_share, shares), strict=True)),
        specificity=_share(shares[plan.task.normal_index]) if len(plan.task.classes) == 2 else math.nan,
        balanced_accuracy=balanced_accuracy(tables["confusion"]),
        calibration_error=calibration_error(tables["confidence"]),
    )


def count_noise_stddev(plan: StudyPlan, participants: int) -> float:
    """Return the standard deviation of the noise in one count of an opened sum, in patients."""
    if not _SOURCES:
        return noise_stddev_of_counts(plan, participants)
    return _SOURCES.get(plan.digest(), partial(noise_stddev_of_counts, plan))(participants)


def take_noise_from(plan: StudyPlan, source: Callable[[int], float]) -> None:
    """Have the numbers of ``count_noise_stddev`` for a plan found elsewhere (``server.deployment.score_noise``)."""
    _SOURCES[plan.digest()] = source


def _curves(plan: StudyPlan, layout: CountLayout, histograms: Counts, noise: float) -> dict[str, dict[str, float]]:
    """Return the AUC of each class that has patients, by name; two exclusive classes have one, that of the second."""
    names = plan.task.classes[1:] if layout.scored < len(plan.task.classes) else plan.task.classes
    found = {}
    for name, histogram in zip(names, histograms, strict=True):
        area = area_under_curve(histogram, noise_stddev=noise)
        if area:
            low, high = _interval(area.value, area.standard_error)
            found[name] = {**vars(area), "low": low, "high": high}
    return found


def _segmentation(plan: StudyPlan, tables: dict[str, Counts], noise: float) -> Evaluation:
    """Dice has no binomial error: the interval covers the noise on both sums and an assumed spread of patients."""
    shares = mean_dice(tables)
    present = np.maximum(tables["present"], 1)
    error = _mean_error(list(np.sqrt(DICE_SPREAD**2 / present + 2 * (noise / present) ** 2)))
    known = shares[np.isfinite(shares)]
    score = float(known.mean()) if len(known) else math.nan
    dice = {name: float(value) for name, value in zip(plan.task.classes[1:], shares, strict=True)}
    patients = float(tables["present"].max())
    return Evaluation(score, error, _interval(score, error), patients, noise, dice=dice, tables=tables)


def _interval(value: float, error: float) -> tuple[float, float]:
    return max(0.0, value - Z_95 * error), min(1.0, value + Z_95 * error)


def _mean_error(errors: list[float]) -> float:
    """Return a bound of the standard error of a mean: classes share patients, so their errors may all go one way."""
    return sum(errors) / len(errors) if errors else math.nan


def _share(value: float) -> float:
    return float(np.clip(value, 0, 1))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
