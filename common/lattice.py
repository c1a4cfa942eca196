"""The lattice on which sums and noise are released, and what it costs.

    g = 2^floor(log2(C 2^-20 / sqrt(d)))        C  clipping norm        d  number of values

or the fixed-point step of the secure sum where that is coarser. Both sides compute it from the plan.
Rounding S to the lattice moves it by at most g sqrt(d) / 2, and so for a neighbour: the sensitivity grows by at most
g sqrt(d), which is 2^-20 C for the fine lattice. ``charged_noise_multiplier`` charges it.
"""

import math
from typing import Final

from common.errors import NoiseError

LATTICE_BITS: Final = 20
LEAST_UNITS: Final = 1 << 10  # of the lattice in the standard deviation of one site's share
MOST_GROWTH: Final = 0.01  # of the sensitivity, relative to the clipping norm


def lattice_step(clipping_norm: float, num_parameters: int, *, coarsest: float = 0.0) -> float:
    """Return g. ``coarsest`` is the step of the fixed-point form in which the sum travels (0: none).

    Raises: NoiseError unless the clipping norm is positive and finite and there is a parameter.
    """
    if not (0 < clipping_norm < math.inf and num_parameters > 0 and 0 <= coarsest < math.inf):
        raise NoiseError(f"no lattice for clipping norm {clipping_norm!r}, {num_parameters} values, step {coarsest!r}")
    fine = 2.0 ** math.floor(math.log2(clipping_norm * 2.0**-LATTICE_BITS / math.sqrt(num_parameters)))
    return max(fine, coarsest)


def sensitivity_growth(step: float, num_parameters: int) -> float:
    """Return how much rounding to the lattice can add to the sensitivity: g sqrt(d)."""
    return step * math.sqrt(num_parameters)


def charged_noise_multiplier(
    noise_multiplier: float, *, clipping_norm: float, step: float, num_parameters: int
) -> float:
    """Return the noise multiplier to account for: sigma C / (C + g sqrt(d)), a little below ``noise_multiplier``."""
    return noise_multiplier * clipping_norm / (clipping_norm + sensitivity_growth(step, num_parameters))


def require_fine_lattice(*, clipping_norm: float, share_stddev: float, step: float, num_parameters: int) -> None:
    """Refuse a lattice on which a sum of rounded shares would not be as good as one rounded Gaussian.

    In ``distributed`` placement each of h sites rounds its own share. The sum of their rounded Gaussians differs from a
    rounded Gaussian of the full variance by far less than any delta once each share's standard deviation is at least
    2^10 steps (docs/privacy.md has the argument); and the growth of the sensitivity must stay below 1 % of C.
    Raises: NoiseError with the value and the bound.
    """
    units = share_stddev / step
    if not units >= LEAST_UNITS:
        raise NoiseError(
            f"each site's share of the noise is {units:.0f} lattice steps wide; {LEAST_UNITS} are needed: "
            "take wider words, more noise or fewer parameters"
        )
    growth = sensitivity_growth(step, num_parameters) / clipping_norm
    if not growth <= MOST_GROWTH:
        raise NoiseError(
            f"rounding adds {growth:.2%} of the clipping norm to the sensitivity; the limit is {MOST_GROWTH:.0%}: "
            "take wider words or fewer parameters"
        )
