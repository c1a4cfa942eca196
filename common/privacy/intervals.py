"""Intervals of shares, for whoever counts right answers."""

import math
from typing import Final

NORMAL_95: Final = 1.959964  # two-sided 95 % quantile of the standard normal distribution


def wilson_bounds(share: float, total: float, *, noise_variance: float = 0.0) -> tuple[float, float]:
    """Return lower and upper end of Wilson's 95 % interval of a share among ``total``, within [0, 1].

        centre = (p + z^2 / 2n) / (1 + z^2 / n),   half = z sqrt(p (1 - p) / n + z^2 / 4 n^2) / (1 + z^2 / n)

    ``share``: p, in [0, 1]; it lies within what is returned. ``noise_variance``: of the share itself, where noise was
    added to the counts; it widens the interval in quadrature.
    Raises: ValueError unless total is above 0. Source: Wilson 1927.
    """
    if total <= 0:
        raise ValueError(f"a share of {total} is none")
    z2 = NORMAL_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    reach = math.sqrt(half**2 + z2 * noise_variance)
    return max(0.0, min(share, centre - reach)), min(1.0, max(share, centre + reach))
