"""Where the noise is added, and what that makes of epsilon for each observer.

``distributed``: each site adds its share of one Gaussian, so that any sum that can be unmasked holds at least the full
noise from honest sites; it rests on secure aggregation (computational). ``local``: each site adds all of it, alone.

    s_min  least number of survivors in a sum that can be unmasked        c  colluding sites assumed
    h      = s_min - c, honest survivors guaranteed in any sum            sigma  noise multiplier of the plan
    each site adds N(0, sigma^2 C^2 / h); an observer who knows the noise of r survivors still faces
    (s_min - r) shares, that is a noise multiplier of sigma sqrt((s_min - r) / h)

With r = c that is sigma: the guarantee. A participating hospital knows one share more: its own. Where every other
survivor is the coordinator's (r = s_min - 1), the patient's own hospital's share is left: sigma / sqrt(h).
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from common.privacy.accounting import LEAST_DELTA, LEAST_NOISE_MULTIPLIER, SampledGaussian, epsilon
from common.privacy.errors import AccountingError
from common.privacy.noise_tails import Shares, tails_delta


@dataclass(frozen=True)
class NoiseShares:
    """The numbers that decide a site's share under ``distributed`` placement. They are privacy parameters.

    minimum_survivors: s_min, at least 3. assumed_colluders: c, at least 0 and at most s_min - 2, so that a sum always
    holds two honest updates. Raises: AccountingError otherwise.
    """

    minimum_survivors: int
    assumed_colluders: int

    def __post_init__(self) -> None:
        for name, value, least in (
            ("minimum survivors", self.minimum_survivors, 3),
            ("assumed colluders", self.assumed_colluders, 0),
        ):
            if type(value) is not int or value < least:
                raise AccountingError(f"{name} is {value!r}; a whole number of at least {least} is needed")
        if self.honest_survivors < 2:
            raise AccountingError(
                f"{self.minimum_survivors} survivors with {self.assumed_colluders} colluders leave "
                f"{self.honest_survivors} honest; 2 are needed: raise the survivors or assume fewer colluders"
            )

    @property
    def honest_survivors(self) -> int:
        """h: honest sites guaranteed in any sum that can be unmasked."""
        return self.minimum_survivors - self.assumed_colluders

    def share_of(self, noise_multiplier: float) -> float:
        """Return the noise multiplier of one site's share: sigma / sqrt(h)."""
        return noise_multiplier / math.sqrt(self.honest_survivors)

    def seen_by(self, noise_multiplier: float, *, known_shares: int) -> float:
        """Return the noise multiplier left to an observer who can subtract ``known_shares`` of the survivors' noise.

        0 when every share is known. Raises: AccountingError if ``known_shares`` is negative.
        """
        if known_shares < 0:
            raise AccountingError(f"known shares is {known_shares}; it cannot be negative")
        left = max(self.minimum_survivors - known_shares, 0)
        return noise_multiplier * math.sqrt(left / self.honest_survivors)


@dataclass(frozen=True)
class ObserverEpsilon:
    """Epsilon towards each observer. Infinite where the observer can subtract (nearly) all noise.

    outsider: sees the released sums and models, and colludes with nobody. guarantee: outsiders together with c
    colluding sites; the figure that the plan promises. hospital: a participating site alone, which subtracts its own
    noise. hospital_with_colluders: one that also knows the noise of the c colluding sites. all_others: a coordinator to
    whom every other survivor of the least sum belongs, so that the patient's hospital hides its patients by its own
    share alone; the more survivors a plan asks for, the smaller that share.
    """

    outsider: float
    guarantee: float
    hospital: float
    hospital_with_colluders: float
    all_others: float


def observer_epsilon(
    events: Sequence[SampledGaussian], delta: float, shares: NoiseShares | None, *, coordinates: int = 1
) -> ObserverEpsilon:
    """Return epsilon of one stratum's ``events`` (full noise multiplier) for each observer; ``shares`` None = local.

    ``coordinates``: numbers in one release, for the tails that drawn noise lacks (``common.privacy.noise_tails``).
    In ``local`` placement nobody can subtract anything that protects another site: five times the same figure.
    """
    if shares is None:
        left = delta - tails_delta(events, coordinates=coordinates)
        return ObserverEpsilon(*[epsilon(events, left) if left >= LEAST_DELTA else math.inf] * 5)
    colluders = shares.assumed_colluders

    def seen(known_shares: int) -> float:
        return _epsilon_seen(events, delta, shares, known_shares, coordinates)

    return ObserverEpsilon(
        outsider=seen(0),
        guarantee=seen(colluders),
        hospital=seen(1),
        hospital_with_colluders=seen(1 + colluders),
        all_others=seen(shares.minimum_survivors - 1),
    )


def epsilon_with_honest(
    events: Sequence[SampledGaussian], delta: float, shares: NoiseShares | None, *, honest: int, coordinates: int = 1
) -> float:
    """Return epsilon of one stratum's ``events`` when a sum holds ``honest`` hospitals and no other real one.

    The rest of the least sum belongs to the coordinator, which subtracts its noise. ``shares`` None = local: no change.
    Infinite where (nearly) no noise is left. Raises: AccountingError.
    """
    if shares is None:
        return observer_epsilon(events, delta, None, coordinates=coordinates).guarantee
    return _epsilon_seen(events, delta, shares, max(0, shares.minimum_survivors - honest), coordinates)


def worst_of(strata: Sequence[ObserverEpsilon]) -> ObserverEpsilon:
    """Return for each observer the largest epsilon of any stratum (disjoint patients); at least one stratum."""
    return ObserverEpsilon(*(max(figures) for figures in zip(*map(astuple, strata), strict=True)))


def _epsilon_seen(
    events: Sequence[SampledGaussian], delta: float, shares: NoiseShares, known_shares: int, coordinates: int
) -> float:
    """Account ``events`` with the noise that is left after subtracting ``known_shares``."""
    seen = [shares.seen_by(event.noise_multiplier, known_shares=known_shares) for event in events]
    standing = Shares(shares.minimum_survivors - known_shares, shares.honest_survivors)
    delta -= tails_delta(events, coordinates=coordinates, shares=standing)
    if delta < LEAST_DELTA or any(noise_multiplier < LEAST_NOISE_MULTIPLIER for noise_multiplier in seen):
        return math.inf
    left = [SampledGaussian(event.sampling_rate, sigma, event.steps) for event, sigma in zip(events, seen, strict=True)]
    return epsilon(left, delta)
