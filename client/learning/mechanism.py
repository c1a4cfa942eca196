"""Everything that happens to a sum over patients before it may leave this building. A reviewer reads this page first.

    y           sum of clipped integers (d,), of one step, from the process that trains: claimed, never believed
    1. bound    |y| above what all patients of the study can add: not their sum; 0 takes its place
    2. cut      each coordinate to the room beside the noise: brings two sums no further apart
    3. noise    y + round(s z), z ~ N(0, I) from the operating system's randomness; nothing is cut after it

    s = (sigma C / sqrt(h)) (1 + g sqrt(d) / C_least) / g      in steps g of the lattice

    C clipping norm   C_least the smaller one of unlabelled patients, where they take part   sigma noise multiplier
    h honest sites that surely share in the noise (1: this site adds all of it)   g sqrt(d) pays for rounding

The agent does it, in numpy. The process that trains sees scans and may have been taken over by one: it can spoil this
site's sum, but can neither leave out the noise nor add more than its patients could (docs/privacy.md section 2).
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from client.dicom.record import Stratum
from client.learning.noise import LARGEST_NORMAL
from client.learning.patient_counts import PatientCounts
from client.learning.training_settings import Placement, TrainingSettings
from common.plan.errors import PlanWeakPrivacyError
from common.privacy.metrics import UNITS_PER_PATIENT, CountLayout

BLOCK: Final = 1 << 20  # values at a time: beside the sum there is no second vector
WIDEST: Final = (1 << 62) - 1  # largest integer where the words of a plan set no limit: with its noise it fits 64 bits

Integers = NDArray[np.signedinteger[Any]]


class LatticeNoise(Protocol):
    """Gaussian noise from a cryptographic source, rounded to integers (``client.learning.noise``)."""

    def integers(self, length: int, stddev: float) -> NDArray[np.int64]:
        """Return round(stddev * z), z standard normal: (length,) int64."""


@dataclass(frozen=True, kw_only=True)
class SumRules:
    """What a kind of sum must keep to, in steps of its lattice.

    stddev: of this site's noise; 0 only where nothing is promised. largest_norm: no sum of these patients is longer
    (L2). room: where a coordinate is cut before the noise.
    """

    length: int
    stddev: float
    largest_norm: float
    room: int

    @classmethod
    def of_gradients(
        cls, settings: TrainingSettings, counts: PatientCounts, *, length: int, step: float, limit: int = WIDEST
    ) -> Self:
        """Return the rules of a phase's clipped sums. ``step``: g; ``limit``: the largest integer a word takes.

        Raises: PlanWeakPrivacyError when the words have no room for one patient beside the noise: cut after the noise,
        a site's share would be missing where another site's patient needs it.
        """
        if settings.placement is Placement.NONE:
            return cls(length=length, stddev=0.0, largest_norm=math.inf, room=limit)
        clips = {stratum: settings.clipping_norm_of(stratum) for stratum in Stratum if settings.sampling_rate(stratum)}
        rounding = step * math.sqrt(length) / min(clips.values())
        stddev = settings.noise_stddev * (1 + rounding) / step
        room = limit - math.ceil(LARGEST_NORMAL * stddev) - 1
        if room * step < settings.clipping_norm:
            raise PlanWeakPrivacyError("the plan's coordinate_range has no room for the noise beside one patient")
        patients = {Stratum.LABELLED: counts.labelled, Stratum.UNLABELLED: counts.unlabelled}
        largest = sum(patients[each] * (clip / step + math.sqrt(length) / 2) for each, clip in clips.items())
        return cls(length=length, stddev=stddev, largest_norm=largest, room=room)

    @classmethod
    def of_counts(cls, layout: CountLayout, *, held_out: int, noise_multiplier: float, honest_survivors: int) -> Self:
        """Return the rules of a score's counts, in 1 / 1024 patient: s = sigma norm / sqrt(h), rounding included.

        ``noise_multiplier``: 0 only for a plan without privacy.
        """
        norm = layout.patient_norm * UNITS_PER_PATIENT + math.sqrt(layout.length) / 2
        stddev = noise_multiplier * norm / math.sqrt(honest_survivors)
        return cls(
            length=layout.length, stddev=stddev, largest_norm=held_out * norm if stddev else math.inf, room=WIDEST
        )


class Mechanism:
    """Turns sums of one kind into what may leave: ``released``."""

    def __init__(self, rules: SumRules, noise: LatticeNoise) -> None:
        self._rules, self._noise = rules, noise

    @property
    def length(self) -> int:
        """Values of a sum."""
        return self._rules.length

    def is_possible(self, sums: Integers) -> bool:
        """Tell whether the patients can have such a sum: right length, not longer than all their clips together."""
        return sums.shape == (self._rules.length,) and _norm(sums) <= self._rules.largest_norm

    def released(self, sums: Integers) -> Integers:
        """Return the sum (length,), cut and noised in its own memory; noise alone where the sum ``is_possible`` not.

        Guarantee: one patient more or less, who moves ``sums`` by at most the clip and its rounding, is hidden by noise
        of standard deviation ``SumRules.stddev``; no value leaves [-limit, limit].
        """
        rules = self._rules
        if not self.is_possible(sums):
            sums = np.zeros(rules.length, sums.dtype)
        for start in range(0, rules.length, BLOCK):
            block = np.clip(sums[start : start + BLOCK].astype(np.int64), -rules.room, rules.room)
            if rules.stddev > 0:
                block += self._noise.integers(len(block), rules.stddev)
            sums[start : start + BLOCK] = block
        return sums


def _norm(values: Integers) -> float:
    """Return the Euclidean norm in float64, by blocks."""
    squares = 0.0
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK].astype(np.float64)
        squares += float(block @ block)
    return math.sqrt(squares)
