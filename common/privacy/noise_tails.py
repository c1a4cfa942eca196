"""What drawn noise lacks of a Gaussian: it never exceeds 8.57 standard deviations. The missing tails go into delta.

A site's noise is a normal number cut at B (``LARGEST_NORMAL``, what Box and Muller's make of 53-bit uniforms). Where
the cut falls tells two data sets apart, at the points that one reaches and the other does not. Let a sum hold the
shares of m sites that an observer does not know, each of standard deviation sigma C / sqrt(h) in d coordinates, and let
a patient move the sum by v, |v| <= C. Write b'(y) for the chance, given the sum y, that some share lies beyond B if the
data set is D'. Then for every set S of outputs

    P_D(S, all within B) <= e^epsilon P_D'(S, all within B) + delta + E_D[b'(Y)]

(differential privacy of the whole Gaussian, applied to the function 1 - b'). Given the sum, the shares are as they were
except that each has v / m more, so with s = sqrt(h) / (m sigma), the largest such shift over a share's deviation,

    E_D[b'(Y)] <= m ((d - 1) 2 Phi(-B) + Phi(-B + s) + Phi(-B - s))      per release; releases add up

because Phi(-B + x) + Phi(-B - x) - 2 Phi(-B) grows faster than x^2 and the squares of all shifts add up to s^2. No
factor e^epsilon comes in. (Dividing by the chance that all lie within B, equal for both, adds 1e-17 of it.) What honest
sites beyond the m add is post-processing. The remaining difference, between 53-bit uniforms and real ones inside B, is
floating-point granularity and is not charged (docs/privacy.md section 7).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from common.privacy.accounting import SampledGaussian

LARGEST_NORMAL: Final = math.sqrt(2 * 53 * math.log(2))  # B = 8.57


@dataclass(frozen=True)
class Shares:
    """Whose noise stands: ``standing`` m shares that the observer does not know, of ``h`` that make the whole noise."""

    standing: int
    h: int


WHOLE: Final = Shares(1, 1)  # one site adds all of it (local placement)


def tails_delta(events: Sequence[SampledGaussian], *, coordinates: int, shares: Shares = WHOLE) -> float:
    """Return the delta that the missing tails cost over all ``events`` (with the whole noise's multiplier).

    ``coordinates``: d, numbers in one release; at least 1. Infinite where no share stands.
    """
    if shares.standing <= 0:
        return math.inf
    total = 0.0
    for event in events:
        shift = math.sqrt(shares.h) / (shares.standing * event.noise_multiplier)
        near = _beyond(LARGEST_NORMAL - shift) + _beyond(LARGEST_NORMAL + shift)
        total += event.steps * shares.standing * (2 * (coordinates - 1) * _beyond(LARGEST_NORMAL) + near)
    return total


def _beyond(x: float) -> float:
    """Return the standard normal's mass above ``x``."""
    return math.erfc(x / math.sqrt(2)) / 2
