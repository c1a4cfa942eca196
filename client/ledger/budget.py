"""From the ledger's entries to epsilon: what each study cost each stratum, and the worst any patient can have spent.

Within a study the strata are disjoint and frozen, so their costs do not add up; attempts of one stratum compose. Over
several studies a patient may have been in any stratum of each: the ceiling is judged against the worst choice of one
stratum a study. All studies are assumed to touch the same patients (fails closed), at the smallest delta among them.
"""

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from client.ledger.errors import LedgerInvalidError
from common.privacy.accounting import COARSE_INTERVAL, SampledGaussian, epsilon, epsilon_under, exceeds, merge

MOST_CHOICES: Final = 27  # histories judged one by one; beyond, the oldest studies count with all strata at once
GROWTHS: Final = (16.0, 2.0, 1.25, 1.05, 1.0)  # look ahead so far, so that not every step pays for the accountant

History = tuple[SampledGaussian, ...]


class EntryKind(StrEnum):
    """What an entry says: of an attempt; of a study (OPENED, WHOLE); of a file of the site (BEGUN_AGAIN).

    OPENED: the terms on which a study began here (``client.ledger.terms``), before its first charge. WHOLE: the study
    is charged all that it promised, because nobody knows what it spent. BEGUN_AGAIN: a named person let a lost file
    begin again; shown for ever after.
    """

    RESERVED = "reserved"
    SPENT = "spent"
    VOID = "void"
    OPENED = "opened"
    WHOLE = "whole"
    BEGUN_AGAIN = "begun again"


OF_AN_ATTEMPT: Final = (EntryKind.RESERVED, EntryKind.SPENT, EntryKind.VOID)
CHARGING: Final = (EntryKind.RESERVED, EntryKind.WHOLE)


class Stratum(StrEnum):
    """A patient is in exactly one stratum of a study, with all scans."""

    LABELLED = "labelled"
    UNLABELLED = "unlabelled"
    VALIDATION = "validation"


@dataclass(frozen=True)
class Charge:
    """What one attempt costs the patients of one stratum."""

    stratum: Stratum
    event: SampledGaussian


@dataclass
class Spending:
    """What one study has cost so far: events that count, by stratum, and its attempts by what became of them.

    promise: events of the whole study as planned; empty for one that an older version began.
    """

    study: str
    delta: float
    events: dict[Stratum, list[SampledGaussian]] = field(default_factory=dict)
    attempts: dict[int, EntryKind] = field(default_factory=dict)
    promise: dict[Stratum, list[SampledGaussian]] = field(default_factory=dict)

    def epsilon(self, stratum: Stratum, *, delta: float | None = None) -> float:
        """Return the epsilon of one stratum in this study alone, at the study's delta unless another is given."""
        return epsilon(self.events.get(stratum, []), delta or self.delta)

    def beyond_promise(self) -> Stratum | None:
        """Return a stratum that was charged more than the plan promised it, at the study's delta; None without one.

        A stratum without a promise may not be charged at all. No accountant is asked where every mechanism was run at
        most as often as planned.
        """
        for stratum, events in self.events.items() if self.promise else ():
            spent, planned = merge(events), merge(self.promise.get(stratum, []))
            if spent and not _within(spent, _steps(planned)):
                ceiling = epsilon(planned, self.delta)
                if not planned or exceeds(spent, delta=self.delta, ceiling=ceiling):
                    return stratum
        return None


class Tally:
    """What ``add_up`` would say, kept up to date entry by entry, with equal mechanisms of a stratum added up."""

    def __init__(self) -> None:
        self._deltas: dict[str, float] = {}
        self._charges: dict[tuple[str, int], list[Charge]] = {}
        self._steps: dict[str, dict[Stratum, Counter[tuple[float, float]]]] = {}
        self._attempts: set[tuple[str, int]] = set()
        self._promises: dict[str, dict[Stratum, list[SampledGaussian]]] = {}
        self.openings: dict[str, Mapping[str, Any]] = {}

    def add(self, body: Mapping[str, Any]) -> None:
        """Count one more entry. Raises: LedgerInvalidError for one that is not understood; nothing is counted then."""
        with _understood():
            study, attempt, kind = body["study"], body["attempt"], EntryKind(body["kind"])
            if kind is EntryKind.OPENED:
                self._promises[study], self.openings[study] = _by_stratum(body["promise"]), body
                self._deltas[study] = min(self._deltas.get(study, math.inf), body["delta"])
            elif kind is EntryKind.WHOLE:
                self._promises[study] = _by_stratum(body["charges"])
            if kind in CHARGING:
                charges = [_charge(packed) for packed in body["charges"]]
                self._deltas[study] = min(self._deltas.get(study, math.inf), body["delta"])
                self._charges.setdefault((study, attempt), []).extend(charges)
                self._move(study, charges, 1)
            elif kind is EntryKind.VOID:
                self._move(study, self._charges.pop((study, attempt)), -1)
            if kind in OF_AN_ATTEMPT:
                self._attempts.add((study, attempt))

    def knows(self, study: str, attempt: int) -> bool:
        """Say whether any entry is about that attempt."""
        return (study, attempt) in self._attempts

    def spending(self) -> list[Spending]:
        """Return the spending of each study, in the order of their first entry; attempts are not listed."""
        return [
            Spending(study, delta, self._events(study), promise=self._promises.get(study, {}))
            for study, delta in self._deltas.items()
        ]

    def _events(self, study: str) -> dict[Stratum, list[SampledGaussian]]:
        by_stratum = {
            stratum: [SampledGaussian(*mechanism, steps) for mechanism, steps in counts.items() if steps > 0]
            for stratum, counts in self._steps.get(study, {}).items()
        }
        return {stratum: events for stratum, events in by_stratum.items() if events}

    def _move(self, study: str, charges: Sequence[Charge], sign: int) -> None:
        strata = self._steps.setdefault(study, {})
        for each in charges:
            mechanism = (each.event.sampling_rate, each.event.noise_multiplier)
            strata.setdefault(each.stratum, Counter())[mechanism] += sign * each.event.steps


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Turn what a malformed entry raises into the ledger's error."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerInvalidError(f"a ledger entry cannot be understood ({error!r:.60}); nothing is spent") from None


def add_up(bodies: Iterable[Mapping[str, Any]]) -> list[Spending]:
    """Return the spending of each study. A reservation counts unless a VOID follows it.

    Raises: LedgerInvalidError for an entry that says something else than this version understands.
    """
    studies: dict[str, Spending] = {}
    charges: dict[tuple[str, int], list[Charge]] = {}
    with _understood():
        for body in bodies:
            study, attempt, kind = body["study"], body["attempt"], EntryKind(body["kind"])
            if kind is EntryKind.BEGUN_AGAIN:
                continue
            if kind in (*CHARGING, EntryKind.OPENED):
                spending = studies.setdefault(study, Spending(study, body["delta"]))
                spending.delta = min(spending.delta, body["delta"])
            if kind in CHARGING:
                charges[study, attempt] = [_charge(packed) for packed in body["charges"]]
            if kind in (EntryKind.OPENED, EntryKind.WHOLE):
                studies[study].promise = _by_stratum(body["promise" if kind is EntryKind.OPENED else "charges"])
            if kind is EntryKind.VOID:
                del charges[study, attempt]
            if kind in OF_AN_ATTEMPT:
                studies[study].attempts[attempt] = kind
    for (study, _), of_attempt in charges.items():
        for each in of_attempt:
            studies[study].events.setdefault(each.stratum, []).append(each.event)
    return list(studies.values())


def read_charges(packed: Any) -> list[Charge]:
    """Return charges as entries hold them. Raises: LedgerInvalidError."""
    with _understood():
        return [_charge(each) for each in packed]


def _by_stratum(packed: Iterable[Mapping[str, Any]]) -> dict[Stratum, list[SampledGaussian]]:
    found: dict[Stratum, list[SampledGaussian]] = {}
    for each in map(_charge, packed):
        found.setdefault(each.stratum, []).append(each.event)
    return found


def _charge(packed: Mapping[str, Any]) -> Charge:
    event = SampledGaussian(packed["sampling_rate"], packed["noise_multiplier"], packed["steps"])
    return Charge(Stratum(packed["stratum"]), event)


class Affordable:
    """The ceiling, and a memory of histories known to stay below it.

    A history costs no more than another that has the same mechanisms at least as often; so once a longer history is
    known to fit, the steps up to it need no accountant. What was looked at far ahead and did not fit is remembered too,
    so that it is looked at once; it never decides about a history itself.
    """

    def __init__(self, ceiling: float) -> None:
        self.ceiling = ceiling
        self._known: list[tuple[float, dict[tuple[float, float], int]]] = []
        self._too_far: list[tuple[float, History]] = []

    def allows(self, spending: Sequence[Spending]) -> bool:
        """Say whether no patient can have passed the ceiling."""
        delta = _smallest_delta(spending)
        return all(self._fits(history, delta) for history in histories(spending))

    def epsilon(self, spending: Sequence[Spending]) -> float:
        """Return the largest epsilon of any possible patient (0 for an empty ledger)."""
        delta = _smallest_delta(spending)
        coarse = {history: epsilon(history, delta, interval=COARSE_INTERVAL) for history in histories(spending)}
        close = [history for history, spent in coarse.items() if spent >= 0.9 * max(coarse.values())]
        return max((epsilon_under(history, delta, ceiling=self.ceiling) for history in close), default=0.0)

    def _fits(self, history: History, delta: float) -> bool:
        if any(known_delta <= delta and _within(history, known) for known_delta, known in self._known):
            return True
        for growth in GROWTHS:
            grown = tuple(
                SampledGaussian(event.sampling_rate, event.noise_multiplier, math.ceil(event.steps * growth))
                for event in history
            )
            if growth > 1 and self._is_too_far(grown, delta):
                continue
            if growth > 1 or not exceeds(grown, delta=delta, ceiling=self.ceiling):
                self._known.append((delta, _steps(grown)))
                return True
        return False

    def _is_too_far(self, grown: History, delta: float) -> bool:
        steps = _steps(grown)
        if any(delta <= known_delta and _within(known, steps) for known_delta, known in self._too_far):
            return True
        if epsilon(grown, delta, interval=COARSE_INTERVAL) <= self.ceiling:
            return False
        self._too_far.append((delta, grown))
        return True


def histories(spending: Sequence[Spending]) -> Iterator[History]:
    """Yield every history that a patient may have: one stratum of each study, and so of all studies together.

    Where that would be more than ``MOST_CHOICES``, the oldest studies count with all their strata: more than the truth.
    """
    choices = [sorted({merge(events) for events in each.events.values()}) for each in spending]
    for place, options in enumerate(choices):
        if math.prod(max(1, len(later)) for later in choices) <= MOST_CHOICES:
            break
        choices[place] = [merge(event for option in options for event in option)]
    seen = set()
    for choice in itertools.product(*[options or [()] for options in choices]):
        history = merge(event for part in choice for event in part)
        if history not in seen:
            seen.add(history)
            yield history


def _smallest_delta(spending: Sequence[Spending]) -> float:
    return min((each.delta for each in spending), default=1e-6)


def _steps(history: History) -> dict[tuple[float, float], int]:
    return {(event.sampling_rate, event.noise_multiplier): event.steps for event in history}


def _within(history: History, known: Mapping[tuple[float, float], int]) -> bool:
    return all(event.steps <= known.get((event.sampling_rate, event.noise_multiplier), 0) for event in history)
