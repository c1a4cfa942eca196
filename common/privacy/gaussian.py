"""What Gaussian releases without sampling cost: the exact formula, in a few microseconds and without an accountant.

Releases that every patient is in compose into one: n_i sums with noise multiplier sigma_i are as good as one Gaussian
release with

    mu = sqrt(sum_i n_i / sigma_i^2),    delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)

Source: Balle and Wang 2018, theorem 8 (one release); Dong, Roth and Su 2022, corollary 2 (composition: mu-GDP). This is
*not* the "GDP accountant" of some libraries, which approximates *sampled* releases by a central limit theorem and
reports less than the truth.
"""

import math
from typing import Final

# Relative error granted to each term: erfc, exp and log are good to a few units in the last place, the exponent
# (at most 745) carries its own rounding.
_TERM_ERROR: Final = 1e-12
_WIDTH: Final = 1e-10  # relative, of the interval in which epsilon is found; its upper end is returned
_ASYMPTOTIC_FROM: Final = 30.0  # beyond it erfc nears the smallest double


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the epsilon of a mu-GDP release at ``delta``, rounded up.

    ``mu``: at least 0 (0 costs nothing); ``delta``: above 0.
    Guarantee: never below the true epsilon; above it by less than a millionth where mu >= 1e-4 and delta >= 1e-12.
    """
    if mu == 0 or _delta_at_most(0.0, mu) <= delta:
        return 0.0
    low, high = 0.0, mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))  # there the first term alone is below delta
    while _delta_at_most(high, mu) > delta:  # only the error granted to the terms can ask for more
        high *= 1 + 1e-6
    while high - low > _WIDTH * high:
        middle = (low + high) / 2
        if _delta_at_most(middle, mu) > delta:
            low = middle
        else:
            high = middle
    return high


def _delta_at_most(epsilon: float, mu: float) -> float:
    """Return delta(epsilon), rounded up."""
    first = math.exp(_log_tail(epsilon / mu - mu / 2))
    second = math.exp(min(epsilon + _log_tail(epsilon / mu + mu / 2), 0.0))
    return first * (1 + _TERM_ERROR) - second * (1 - _TERM_ERROR)


def _log_tail(x: float) -> float:
    """Return the logarithm of the standard normal's mass above ``x``.

    Far out: ln(phi(x) / x (1 - 1/x^2 + 3/x^4 - 15/x^6 + 105/x^8)), good to 945 / x^10 = 2e-12 at 30.
    """
    if x < _ASYMPTOTIC_FROM:
        return math.log(math.erfc(x / math.sqrt(2)) / 2)
    inverse = 1 / (x * x)
    series = -inverse * (1 - inverse * (3 - inverse * (15 - 105 * inverse)))
    return -x * x / 2 - math.log(x * math.sqrt(2 * math.pi)) + math.log1p(series)
