"""The second opinion: epsilon by Opacus' PRV and RDP accountants, to hold against the accountant of record.

Opacus takes seconds to import and 8 times the accountant's time, so it is loaded only when somebody asks to verify.
Its ``gdp`` accountant reports below the true epsilon and is never used. Source: Gopi, Lee and Wutschitz 2021 (PRV);
Mironov 2017 and Mironov, Talwar and Zhang 2019 (RDP).
"""

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from common.privacy.accounting import SampledGaussian, epsilon, merge, require_delta

PRV_ERROR: Final = 0.01  # the error in epsilon that PRV is asked for and states
RDP_ORDERS: Final = tuple([1 + order / 10 for order in range(1, 100)] + list(range(11, 64)) + [128, 256, 512])


@dataclass(frozen=True)
class CrossCheck:
    """One history under three accountants. ``pld`` is the figure of record."""

    pld: float
    prv: float
    rdp: float

    @property
    def agrees(self) -> bool:
        """Say whether the second accountants confirm the first.

        PRV states an error of 0.01 and differs in method: 0.02 + 0.5 % are allowed. RDP is an upper bound, so it must
        not lie below PLD (0.5 % for its own rounding).
        """
        return abs(self.pld - self.prv) <= 0.02 + 0.005 * self.pld and self.rdp >= self.pld * 0.995 - 1e-3


def epsilon_cross_check(events: Sequence[SampledGaussian], delta: float) -> CrossCheck:
    """Compute epsilon of one stratum's ``events`` with PLD, PRV and RDP. No events: zeros (Opacus' PRV would raise).

    Cost: PRV 0.3 to 5 s. Raises: AccountingError as ``epsilon`` does.
    """
    require_delta(delta)
    merged = merge(events)
    if not merged:
        return CrossCheck(0.0, 0.0, 0.0)
    return CrossCheck(pld=epsilon(merged, delta), prv=_prv(merged, delta), rdp=_rdp(merged, delta))


def _prv(merged: Sequence[SampledGaussian], delta: float) -> float:
    with _quietly():
        return _prv_of(merged, delta)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep Opacus' remarks on its orders and tails from the terminal: what counts is whether both agree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _prv_of(merged: Sequence[SampledGaussian], delta: float) -> float:
    accountant = importlib.import_module("opacus.accountants").PRVAccountant()
    accountant.history = [(event.noise_multiplier, event.sampling_rate, event.steps) for event in merged]
    return float(accountant.get_epsilon(delta, eps_error=PRV_ERROR))


def _rdp(merged: Sequence[SampledGaussian], delta: float) -> float:
    rdp = importlib.import_module("opacus.accountants.analysis.rdp")
    spent = sum(
        rdp.compute_rdp(
            q=event.sampling_rate, noise_multiplier=event.noise_multiplier, steps=event.steps, orders=RDP_ORDERS
        )
        for event in merged
    )
    with _quietly():
        return float(rdp.get_privacy_spent(orders=RDP_ORDERS, rdp=spent, delta=delta)[0])
