"""Can these be the counts of the declared patients? Public bounds for every cell, and between the tables.

A hospital adds what it likes to the summed counts, and with them to the score. What no honest sum can be is seen:

    cells     -z s <= cell <= H + z s                     H  most held-out patients the participants can have
    totals    sum of a table <= H + z s sqrt(cells)       s  noise of a count; a sum of k counts has s sqrt(k)
    rows      patients with a class: the confusion table's row against the score histogram's
    answers   two classes: who was answered the second is who scored in the upper half
    right     the diagonal of the confusion table against the confidence of right answers
    Dice      0 <= sum of Dice <= patients that have one

H = 1.1 * 0.2 * declared + 6 sqrt(0.16 * declared): a fifth by keyed hash of the labelled patients, whose declared
number is rounded. z = 6.5: a false alarm in ten billion bounds. A sum outside is void: it decides nothing, and no score
of it is shown. What passes can still be wrong (docs/threat-model.md): tables that fit each other, or within the noise.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from common.plan.plan import StudyPlan
from common.plan.schedule import count_layout
from common.plan.selection import HELD_OUT_SHARE
from common.privacy.metrics import CountKind, Counts

DEVIATIONS: Final = 6.5
DECLARED_TOO_LOW: Final = 1.1
ROUNDING: Final = 1e-6  # of sums of float64


@dataclass(frozen=True)
class Bound:
    """A figure of the tables, what it must lie between without noise, and how many counts' noise is in it."""

    what: str
    value: float
    low: float
    high: float
    counts: int

    def is_broken(self, noise_stddev: float) -> bool:
        """Tell whether the figure lies outside, the noise of its counts considered."""
        slack = DEVIATIONS * noise_stddev * math.sqrt(self.counts) + ROUNDING
        return not self.low - slack <= self.value <= self.high + slack


def most_held_out(plan: StudyPlan) -> float:
    """Return H: the most held-out patients that all sites together can have."""
    declared = sum(site.labelled_patients for site in plan.sites)
    spread = math.sqrt(HELD_OUT_SHARE * (1 - HELD_OUT_SHARE) * declared)
    return DECLARED_TOO_LOW * HELD_OUT_SHARE * declared + 6 * spread


def why_void(plan: StudyPlan, tables: dict[str, Counts], noise_stddev: float) -> str:
    """Return why these counts cannot be those of the declared patients, one sentence; empty where they can.

    Shapes: tables as in ``common.privacy.metrics.CountLayout``, in patients. ``noise_stddev``: of one count.
    """
    broken = [bound for bound in _bounds(plan, tables) if bound.is_broken(noise_stddev)]
    if not broken:
        return ""
    first, more = broken[0], f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
    slack = DEVIATIONS * noise_stddev * math.sqrt(first.counts)
    return (
        f"void: {first.what} is {first.value:.1f}, with the noise it can be {first.low - slack:.1f} to "
        f"{first.high + slack:.1f}{more}: a hospital's counts are not those of its declared patients"
    )


def _bounds(plan: StudyPlan, tables: dict[str, Counts]) -> Iterator[Bound]:
    most = most_held_out(plan)
    for name, table in tables.items():
        yield Bound(f"the least count of {name}", float(table.min()), 0.0, most, 1)
        yield Bound(f"the largest count of {name}", float(table.max()), 0.0, most, 1)
    kind = count_layout(plan).kind
    if kind is CountKind.SEGMENTATION:
        yield from _dice(tables)
        return
    for name, table in _one_patient_tables(tables).items():
        yield Bound(f"the patients of {name}", float(table.sum()), 0.0, most, table.size)
    if kind is CountKind.CLASSIFICATION:
        yield from _between(tables["confusion"], tables["histograms"], tables["confidence"])


def _one_patient_tables(tables: dict[str, Counts]) -> dict[str, Counts]:
    """Return the tables in which a patient is one cell."""
    histograms = {f"histogram {index + 1}": table for index, table in enumerate(tables["histograms"])}
    return {name: tables[name] for name in ("confusion", "confidence") if name in tables} | histograms


def _dice(tables: dict[str, Counts]) -> Iterator[Bound]:
    for index, (dice, present) in enumerate(zip(tables["dice"], tables["present"], strict=True)):
        yield Bound(f"Dice of class {index + 1} less its patients", float(dice - present), -math.inf, 0.0, 2)


def _between(confusion: Counts, histograms: Counts, confidence: Counts) -> Iterator[Bound]:
    """Every patient is once in each table, so totals, rows and right answers are equal but for the noise."""
    size, bins = len(confusion), histograms.shape[2]

    def equal(what: str, one: float, other: float, counts: int) -> Bound:
        return Bound(f"{what} in one table less in another", one - other, 0.0, 0.0, counts)

    yield equal("the patients", float(confidence.sum()), float(confusion.sum()), 2 * bins + size**2)
    yield equal("right answers", float(confidence[1].sum()), float(np.trace(confusion)), bins + size)
    for row, index in enumerate(range(size) if len(histograms) > 1 else range(1, 2)):
        of_class, others = float(confusion[index].sum()), float(np.delete(confusion, index, 0).sum())
        yield equal(f"patients of class {index + 1}", float(histograms[row, 1].sum()), of_class, bins + size)
        yield equal(
            f"patients without class {index + 1}", float(histograms[row, 0].sum()), others, bins + size * (size - 1)
        )
    if size == 2 and bins % 2 == 0:
        yield from _halves(confusion, histograms[0])


def _halves(confusion: Counts, histogram: Counts) -> Iterator[Bound]:
    """Whoever is answered the second class scores one half or more; at exactly one half either may be answered."""
    half = histogram.shape[1] // 2
    for row in range(2):
        answered, upper = float(confusion[row, 1]), float(histogram[row, half:].sum())
        what = f"patients of class {row + 1} answered 2 less those who score above one half"
        yield Bound(what, answered - upper, -math.inf, 0.0, half + 1)
        yield Bound(what, answered - (upper - float(histogram[row, half])), 0.0, math.inf, half)
