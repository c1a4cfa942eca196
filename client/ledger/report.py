"""What the ledger means for a person: spent and remaining by study and stratum; and what a second accountant says."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from client.ledger.budget import OF_AN_ATTEMPT, Affordable, Spending, Stratum
from common.privacy.accounting import COARSE_INTERVAL, epsilon, merge
from common.privacy.accounting_check import CrossCheck, epsilon_cross_check

MOST_ATTEMPTS_AHEAD: Final = 4096
CHART_POINTS: Final = 16


@dataclass(frozen=True)
class StratumReport:
    """One stratum of one study.

    epsilon: spent, at the study's delta, in this study alone. remaining: the site's ceiling minus what a patient of
    this stratum may have spent over all studies.
    """

    study: str
    stratum: Stratum
    delta: float
    attempts: int
    steps: int
    epsilon: float
    remaining: float


@dataclass(frozen=True)
class LedgerReport:
    """The whole ledger. epsilon: the most any patient may have spent over all studies, at the smallest delta.

    attempts_left: how many more attempts like the last one fit under the ceiling and the study's own promise (at most
    4096 are tried); None for an empty ledger. outcomes: number of attempts by what became of them; reserved ones
    count as spent.
    """

    ceiling: float
    epsilon: float
    delta: float | None
    attempts_left: int | None
    outcomes: dict[str, int]
    strata: tuple[StratumReport, ...]

    @property
    def remaining(self) -> float:
        """Return ceiling minus epsilon. Epsilons of later steps do not simply add up: see ``attempts_left``."""
        return max(0.0, self.ceiling - self.epsilon)


def report(spending: Sequence[Spending], *, ceiling: float) -> LedgerReport:
    """Account the ledger's entries. Cost: about a second a study."""
    budget = Affordable(ceiling)
    outcomes = Counter(kind.value for study in spending for kind in study.attempts.values())
    return LedgerReport(
        ceiling=ceiling,
        epsilon=budget.epsilon(spending),
        delta=min((study.delta for study in spending), default=None),
        attempts_left=_attempts_left(budget, spending),
        outcomes={kind.value: outcomes[kind.value] for kind in OF_AN_ATTEMPT},
        strata=tuple(_stratum(budget, spending, study, stratum) for study, stratum in _charged(spending)),
    )


def verify(spending: Sequence[Spending]) -> list[tuple[str, Stratum, CrossCheck]]:
    """Recompute epsilon of each study's strata with Opacus' PRV and RDP accountants. Cost: some seconds each."""
    return [
        (study.study, stratum, epsilon_cross_check(study.events[stratum], study.delta))
        for study, stratum in _charged(spending)
    ]


def curve(study: Spending, stratum: Stratum) -> list[tuple[int, float]]:
    """Return epsilon after some of the stratum's events, from 0, for a chart: about ``CHART_POINTS`` points."""
    events = study.events.get(stratum, [])
    stride = max(1, len(events) // CHART_POINTS)
    marks = sorted({1, *range(stride, len(events), stride), len(events)}) if events else []
    return [(0, 0.0)] + [(mark, epsilon(events[:mark], study.delta, interval=COARSE_INTERVAL)) for mark in marks]


def _charged(spending: Sequence[Spending]) -> Iterator[tuple[Spending, Stratum]]:
    for study in spending:
        for stratum in Stratum:
            if study.events.get(stratum):
                yield study, stratum


def _stratum(budget: Affordable, spending: Sequence[Spending], study: Spending, stratum: Stratum) -> StratumReport:
    events = study.events[stratum]
    only = Spending(study.study, study.delta, {stratum: events})
    worst = budget.epsilon([only if each is study else each for each in spending])
    return StratumReport(
        study=study.study,
        stratum=stratum,
        delta=study.delta,
        attempts=len(events),
        steps=sum(event.steps for event in merge(events)),
        epsilon=epsilon(events, study.delta),
        remaining=max(0.0, budget.ceiling - worst),
    )


def _attempts_left(budget: Affordable, spending: Sequence[Spending]) -> int | None:
    """Find, by doubling and halving, how often the last event of each stratum of the last study still fits."""
    charged = [study for study in spending if study.events]
    if not charged:
        return None

    def allowed(count: int) -> bool:
        last = charged[-1]
        more = {stratum: events + [events[-1]] * count for stratum, events in last.events.items() if events}
        longer = Spending(last.study, last.delta, more, promise=last.promise)
        return longer.beyond_promise() is None and budget.allows([*charged[:-1], longer])

    low, high = 0, 1
    while high <= MOST_ATTEMPTS_AHEAD and allowed(high):
        low, high = high, high * 2
    while high - low > 1 and low < MOST_ATTEMPTS_AHEAD:
        middle = (low + high) // 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return min(low, MOST_ATTEMPTS_AHEAD)
