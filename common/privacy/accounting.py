"""What training costs: events, and the epsilon they add up to; the noise that a target epsilon needs.

An event says what was *done* to one stratum of patients; epsilon says what it *means*. Events are kept (in the plan, in
the ledger), epsilon is always computed again from them. This module knows nothing of models or files.

Unit of privacy: the patient with all their scans. Neighbouring relation: zero-out (``REPLACE_SPECIAL``), see
``NeighbouringRelation``. Replace-one would cost 1.95 to 2.35 times as much: quote the relation beside every epsilon.

Where every patient is in every step (sampling rate 1), epsilon has an exact formula (``common.privacy.gaussian``).
Otherwise the accountant of record is Google's privacy loss distributions (dp-accounting). It rounds losses up, so its
epsilon is an upper bound at every interval; the interval is 1e-3, or 1e-4 where that could matter (``_is_exact``).
Composition assumes that sampling rates, noise and number of steps were fixed before the first output was seen (the
approved plan); models may adapt, parameters of the mechanism may not.

Source: Koskela et al. 2020; Meiser and Mohammadi 2018; Doroshenko et al. 2022 (connect-the-dots);
Zhu, Dong and Wang 2022 (dominating pairs). Checked against a second accountant in ``common.privacy.accounting_check``.
"""

import functools
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from common.privacy.errors import AccountingError
from common.privacy.gaussian import gaussian_epsilon
from common.privacy.google_accounting import google_accounting
from common.privacy.kept_figures import kept_or

FINE_INTERVAL: Final = 1e-4  # of the privacy loss
COARSE_INTERVAL: Final = 1e-3  # ten times faster, loose by up to half when epsilon is tiny; also an upper bound
MOST_NOISE_MULTIPLIER: Final = 1e6
LEAST_NOISE_MULTIPLIER: Final = 0.2  # below it one step costs epsilon > 10 and the accountant minutes: no privacy
MOST_STEPS: Final = 1_000_000
MEANINGLESS_EPSILON: Final = 100.0  # above it the fine interval is not worth its time
LEAST_DELTA: Final = 1e-15
EXACT: Final = 2e-4  # relative: how much above the fine figure a coarse one may be, to stand for it
NOISE_STEPS: Final = 10_000  # noise multipliers are rounded up to a multiple of 1 / 10,000
_one_at_a_time = threading.Lock()  # simulated sites ask for the same figure at the same moment: one computes, all read


class NeighbouringRelation(StrEnum):
    """What "one patient different" means.

    ``ZERO_OUT``: one patient's record is replaced by a null record of the same stratum, so the number of patients in a
    stratum may be public. dp-accounting calls it ``REPLACE_SPECIAL``; epsilon equals that of add-or-remove-one.
    """

    ZERO_OUT = "zero-out"


@dataclass(frozen=True, order=True)
class SampledGaussian:
    """``steps`` releases of a sum over Poisson-sampled patients, each patient's vector of norm <= C, plus noise.

    sampling_rate: chance that a patient is in a step, (0, 1]; 1 means every patient, every step.
    noise_multiplier: standard deviation of the noise on the whole sum, divided by the clipping norm C of the stratum.
    steps: number of releases, 1 to 1,000,000.
    Raises: AccountingError for anything else, NaN and bool included, so that an event that exists can be charged.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        require_number("sampling rate", self.sampling_rate, least=1e-9, most=1.0)
        require_number(
            "noise multiplier", self.noise_multiplier, least=LEAST_NOISE_MULTIPLIER, most=MOST_NOISE_MULTIPLIER
        )
        if type(self.steps) is not int or not 1 <= self.steps <= MOST_STEPS:
            raise AccountingError(f"steps is {self.steps!r}; a whole number from 1 to {MOST_STEPS} is needed")


def epsilon(events: Sequence[SampledGaussian], delta: float, *, interval: float = FINE_INTERVAL) -> float:
    """Return the epsilon that a patient of one stratum has spent after ``events``, at ``delta``.

    The events compose (same patients); strata do not (disjoint patients): call once for each stratum, take the largest.
    Guarantee: an upper bound of the true epsilon for both directions of the zero-out relation, whatever the interval;
    at the fine one less than ``EXACT`` above what that interval itself gives. No events: 0. Sampling rate 1: exact.
    Cost otherwise: 0.05 to 1.4 s of one core the first time, after half a second for loading the accountant.
    Raises: AccountingError for an unknown kind of event, or delta outside [1e-15, 0.1].
    """
    require_delta(delta)
    merged = merge(events)
    if all(event.sampling_rate == 1 for event in merged):
        return gaussian_epsilon(math.sqrt(sum(event.steps / event.noise_multiplier**2 for event in merged)), delta)
    with _one_at_a_time:
        coarse = _epsilon(merged, delta, max(interval, COARSE_INTERVAL))
        if interval >= COARSE_INTERVAL or _is_exact(coarse, sum(event.steps for event in merged)):
            return coarse
        return _epsilon(merged, delta, interval)


def epsilon_under(events: Sequence[SampledGaussian], delta: float, *, ceiling: float) -> float:
    """Return ``epsilon(events, delta)``; where that is above ``ceiling``, the fine interval's own figure.

    So nothing is refused for the last 0.02 per cent. Raises: as ``epsilon``.
    """
    require_number("ceiling", ceiling, least=0.0, most=math.inf)
    spent = epsilon(events, delta)
    merged = merge(events)
    if not ceiling < spent <= MEANINGLESS_EPSILON or all(event.sampling_rate == 1 for event in merged):
        return spent
    with _one_at_a_time:
        return _epsilon(merged, delta, FINE_INTERVAL)


def exceeds(events: Sequence[SampledGaussian], *, delta: float, ceiling: float) -> bool:
    """Return whether ``events`` cost more than ``ceiling``; asks the coarse upper bound first, because it is fast.

    Guarantee: False only if the epsilon of record is at most ``ceiling``.
    """
    require_number("ceiling", ceiling, least=0.0, most=math.inf)
    if epsilon(events, delta, interval=COARSE_INTERVAL) <= ceiling:
        return False
    return epsilon_under(events, delta, ceiling=ceiling) > ceiling


def noise_multiplier_for(*, epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """Return the least noise multiplier, rounded up to 1e-4, whose ``steps`` steps cost at most ``epsilon``.

    Guarantee: ``accounting.epsilon([SampledGaussian(sampling_rate, result, steps)], delta) <= epsilon``.
    Raises: AccountingError if no noise multiplier between 0.2 and 1e6 does it, or for a value out of bounds: epsilon
        outside [1e-3, 100], delta outside [1e-15, 0.1], or a rate or number of steps that no event may have.
    """
    require_number("epsilon", epsilon, least=1e-3, most=MEANINGLESS_EPSILON)
    SampledGaussian(sampling_rate, 1.0, steps)  # refuses bad rates and steps
    interval = COARSE_INTERVAL if epsilon >= 1 else FINE_INTERVAL

    def cost(noise_multiplier: float) -> float:
        return _cost(SampledGaussian(sampling_rate, noise_multiplier, steps), delta, interval)

    guess = max(1.0, 5 * sampling_rate * math.sqrt(steps) / epsilon)  # close for delta = 1e-5; any guess is right
    noise_multiplier = _round_up(_bisect(cost, target=epsilon, guess=guess))
    while _cost(SampledGaussian(sampling_rate, noise_multiplier, steps), delta, FINE_INTERVAL) > epsilon:
        noise_multiplier = _round_up(noise_multiplier * 1.001)
    return noise_multiplier


def merge(events: Iterable[SampledGaussian]) -> tuple[SampledGaussian, ...]:
    """Return ``events`` with equal mechanisms added up, sorted: equal histories give equal tuples.

    Raises: AccountingError for anything that is not a ``SampledGaussian``: an unknown event is never free.
    """
    steps: dict[tuple[float, float], int] = {}
    for event in events:
        if type(event) is not SampledGaussian:
            raise AccountingError(f"an event of kind {type(event).__name__} cannot be charged; SampledGaussian can")
        mechanism = (float(event.sampling_rate), float(event.noise_multiplier))
        steps[mechanism] = steps.get(mechanism, 0) + event.steps
    return tuple(sorted(SampledGaussian(q, sigma, count) for (q, sigma), count in steps.items()))


def require_delta(delta: float) -> None:
    """Raise AccountingError unless 1e-15 <= delta <= 0.1. How small it must be (below 1 / patients) the plan says."""
    require_number("delta", delta, least=LEAST_DELTA, most=0.1)


@functools.lru_cache(maxsize=256)
def _epsilon(merged: tuple[SampledGaussian, ...], delta: float, interval: float) -> float:
    """Compose the events' privacy loss distributions and read epsilon off at ``delta``, or take the figure kept."""
    question = {
        "events": [[event.sampling_rate, event.noise_multiplier, event.steps] for event in merged],
        "delta": delta,
        "interval": interval,
    }
    return kept_or(question, lambda: _composed(merged, delta, interval))


def _composed(merged: tuple[SampledGaussian, ...], delta: float, interval: float) -> float:
    dp_accounting = google_accounting()
    accountant = dp_accounting.pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL, interval)
    for event in merged:
        accountant.compose(google_event(event))
    return float(accountant.get_epsilon(delta))


def _is_exact(coarse: float, steps: int) -> bool:
    """Say whether a figure at the coarse interval h can stand for the fine one.

    Connecting the dots adds at most about steps h^2 (measured: 0.3 to 1.3 times that over the plans of
    private-training.md), which is nothing beside a large epsilon and much beside a small one.
    """
    return coarse > MEANINGLESS_EPSILON or 1.5 * steps * COARSE_INTERVAL**2 <= EXACT * coarse


def google_event(event: SampledGaussian) -> Any:
    """Translate an event for dp-accounting; a rate of 1 is a plain Gaussian, composed exactly."""
    dp_accounting = google_accounting()
    gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
    one = gaussian if event.sampling_rate == 1 else dp_accounting.PoissonSampledDpEvent(event.sampling_rate, gaussian)
    return dp_accounting.SelfComposedDpEvent(one, event.steps)


def _cost(event: SampledGaussian, delta: float, interval: float) -> float:
    return epsilon([event], delta, interval=interval)


def _bisect(cost: Callable[[float], float], *, target: float, guess: float) -> float:
    """Find a noise multiplier with cost <= target, within 2e-5 of the least, for a cost that falls with noise.

    False position on log cost over log noise (nearly a straight line there), with a bisection every third step.
    """
    low, high = _bracket(cost, target=target, guess=guess)
    if low == high:
        return low
    cost_low, cost_high = cost(low), cost(high)
    for attempt in range(60):
        if high - low <= 2e-5 * high or cost_high <= target <= cost_high * (1 + 2e-5):
            break
        fraction = 0.5
        if attempt % 3 != 2 and math.isfinite(cost_low) and 0 < cost_high < cost_low:
            fraction = math.log(cost_low / target) / math.log(cost_low / cost_high)
            fraction = min(max(fraction + 1e-5, 1e-3), 1 - 1e-3)
        middle = low * (high / low) ** fraction
        cost_middle = cost(middle)
        if cost_middle > target:
            low, cost_low = middle, cost_middle
        else:
            high, cost_high = middle, cost_middle
    return high


def _bracket(cost: Callable[[float], float], *, target: float, guess: float) -> tuple[float, float]:
    """Return two noise multipliers, the first too small and the second large enough (equal: the least is enough)."""
    high = guess
    while cost(high) > target:
        high *= 2
        if high > MOST_NOISE_MULTIPLIER:
            raise AccountingError(
                f"no noise multiplier up to {MOST_NOISE_MULTIPLIER:g} reaches epsilon {target:g}; take fewer steps"
            )
    low = high / 2
    while cost(max(low, LEAST_NOISE_MULTIPLIER)) <= target:
        if low <= LEAST_NOISE_MULTIPLIER:
            return LEAST_NOISE_MULTIPLIER, LEAST_NOISE_MULTIPLIER
        low, high = low / 2, low
    return max(low, LEAST_NOISE_MULTIPLIER), high


def _round_up(noise_multiplier: float) -> float:
    """Round up to a multiple of 1e-4, exactly (a float product could round down)."""
    steps = math.ceil(Fraction(noise_multiplier) * NOISE_STEPS)
    return steps / NOISE_STEPS


def require_number(name: str, value: float, *, least: float, most: float) -> None:
    """Raise AccountingError unless ``value`` is a real number in [least, most]; NaN, bool and text are refused."""
    if type(value) not in (int, float) or not least <= value <= most:
        raise AccountingError(f"{name} is {value!r}; a number from {least:g} to {most:g} is needed")
