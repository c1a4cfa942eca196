"""The privacy ledger of a hospital: what its patients have spent, in every study, and the refusal to spend more.

    RESERVED   durable before the first patient is read; from here on the cost counts
    SPENT      durable before anything leaves
    VOID       the cost no longer counts: only by the process that reserved, while it lives and nothing has left, for a
               reason that does not depend on data. After a crash a reservation stays spent.

Rules: an attempt of a study is charged once, ever. A charge that would lift any patient above the site's ceiling is
refused, and one that would lift a stratum above what the study's plan promised it (``client.ledger.terms``). Events,
not epsilon, are stored: epsilon is computed from them each time (``client.ledger.budget``).
Source: privacy.md section 4; secure-aggregation.md section 6.0, points 2 and 4.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from client.ledger.budget import Affordable, Charge, EntryKind, Spending, Stratum, Tally, add_up
from client.ledger.errors import BudgetExhaustedError, LedgerInvalidError, PromiseSpentError
from client.ledger.store import LedgerStore, Row, study_start
from client.ledger.terms import LogMark, StudyTerms, marked, packed
from common.privacy.accounting import SampledGaussian, epsilon, require_delta, require_number
from common.privacy.errors import AccountingError

MAX_STUDY_CHARACTERS: Final = 128


@dataclass(frozen=True)
class Reservation:
    """An attempt whose cost is in the ledger. ``study``: the plan's digest."""

    study: str
    attempt: int


@dataclass(frozen=True)
class Remark:
    """That a lost ``file`` of this site began again: who decided it, why, and the audit log's newest line then.

    time_s: when it was decided (seconds since 1970), where that is carried over from another record; default: now.
    """

    file: str
    person: str
    reason: str
    log: LogMark
    time_s: int | None = None


class Ledger:
    """A site's ledger in use. Not for several threads; several processes may use one file.

    ceiling: the largest epsilon that any patient may reach over all studies here (``policy.toml``). It is judged at the
    smallest delta of all studies. clock: seconds since 1970, for the record only.
    """

    def __init__(self, store: LedgerStore, *, ceiling: float, clock: Callable[[], float] = time.time) -> None:
        require_number("epsilon ceiling", ceiling, least=0.0, most=1000.0)
        self._store, self._clock = store, clock
        self._affordable = Affordable(ceiling)
        self._open: set[Reservation] = set()
        self._tally, self._counted = Tally(), 0
        self._last: Row | None = None

    @classmethod
    def open(cls, path: Path, *, ceiling: float) -> "Ledger":
        """Open the ledger of a site. Raises: LedgerInvalidError if it is missing, damaged, or an older copy."""
        return cls(LedgerStore(path), ceiling=ceiling)

    @classmethod
    def create(cls, path: Path, *, ceiling: float = 0.0) -> "Ledger":
        """Begin the ledger of a new site, once. Raises: OutputExistsError."""
        return cls(LedgerStore.create(path), ceiling=ceiling)

    def reserve(
        self, study: str, attempt: int, charges: Sequence[Charge], *, delta: float, terms: StudyTerms | None = None
    ) -> Reservation:
        """Charge one attempt, durably, before any patient is read.

        ``delta``: the study's. ``terms``: entered before the study's first charge, compared with that entry later.
        Guarantee: when this returns, the cost survives any crash; a refusal charges nothing (a failing disk may).
        Raises: BudgetExhaustedError if a patient could pass the ceiling; PromiseSpentError if a stratum would cost more
        than the plan promised it; StrataChangedError; LedgerInvalidError if the attempt was charged before;
        AccountingError for no charge at all.
        """
        require_delta(delta)
        if not charges or not study.isprintable() or not 0 < len(study) <= MAX_STUDY_CHARACTERS or attempt < 1:
            raise AccountingError("a reservation needs a study, an attempt from 1, and at least one charge")
        reservation = Reservation(study, attempt)
        with self._store.exclusive():
            self._refuse_known(reservation)
            if terms is not None:
                self._open_study(study, terms, delta)
            body = {**self._body(EntryKind.RESERVED, reservation), "delta": delta, "charges": packed(charges)}
            self._store.append(study, body)
            self._refuse_above_promise(study)
            self._refuse_above_ceiling()
        self._open.add(reservation)
        return reservation

    def spend(self, reservation: Reservation) -> None:
        """Record, durably, that the attempt's result is about to leave.

        Raises: LedgerInvalidError unless this process holds the reservation.
        """
        self._close(EntryKind.SPENT, reservation)

    def void(self, reservation: Reservation) -> None:
        """Take the charge back: nothing left, and the reason does not depend on the site's data.

        Raises: LedgerInvalidError unless this process holds the reservation and has not spent it.
        """
        self._close(EntryKind.VOID, reservation)

    def charge_whole(self, promises: Mapping[str, tuple[Sequence[Charge], float]], *, remark: Remark) -> None:
        """Charge studies all that they promised, at the delta beside each, whatever the ceiling; say who decided it.

        For a ledger that begins again: nobody knows what was spent, so all counts. One transaction.
        """
        with self._store.exclusive():
            for study, (charges, delta) in promises.items():
                body = self._body(EntryKind.WHOLE, Reservation(study, 0))
                self._store.append(study, {**body, "delta": delta, "charges": packed(charges)})
            self._append_remark(remark)

    def note(self, remark: Remark) -> None:
        """Enter, for ever, that a lost file of this site began again."""
        with self._store.exclusive():
            self._append_remark(remark)

    def entries(self, *kinds: EntryKind) -> list[Mapping[str, Any]]:
        """Return what entries of these kinds say, oldest first."""
        self._store.refresh()
        return [row.body for row in self._store.rows if row.body["kind"] in kinds]

    def openings(self) -> dict[str, Mapping[str, Any]]:
        """Return each study's first entry, as far as this version made it."""
        self._store.refresh()
        return dict(self._up_to_date().openings)

    def head(self, study: str) -> bytes:
        """Return the 32-byte head of the study's chain, the anchor that travels in KEYS."""
        self._store.refresh()
        return self._store.study_head(study)

    def check_anchor(self, study: str, head: bytes) -> None:
        """Compare with a head that this site once signed, as kept by the coordinator or another site.

        Raises: LedgerInvalidError if the study's chain never had that head: this copy is older than the signature.
        """
        self._store.refresh()
        known = {study_start(study)} | {row.study_hash for row in self._store.rows if row.study == study}
        if head not in known:
            raise LedgerInvalidError(
                f"the ledger does not contain the head {head.hex()[:16]}… that this site signed for the study: "
                "an older copy was restored, or entries were removed. Nothing is spent until the newest copy is back"
            )

    def spending(self) -> list[Spending]:
        """Return what counts, study by study in the order of their first entry."""
        self._store.refresh()
        return add_up(row.body for row in self._store.rows)

    def epsilon(self) -> float:
        """Return the largest epsilon that any patient here may have spent over all studies."""
        return self._affordable.epsilon(self.spending())

    def close(self) -> None:
        """Close the file. Open reservations stay charged."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refuse_known(self, reservation: Reservation) -> None:
        if self._up_to_date().knows(reservation.study, reservation.attempt):
            raise LedgerInvalidError(
                f"attempt {reservation.attempt} of study {reservation.study[:12]}… is in the ledger already; an "
                "attempt is never repeated: the coordinator must order a higher one"
            )

    def _open_study(self, study: str, terms: StudyTerms, delta: float) -> None:
        """Enter the study's terms, once; refuse another list of patients ever after."""
        opening = self._up_to_date().openings.get(study)
        if opening is None:
            self._store.append(study, {**self._body(EntryKind.OPENED, Reservation(study, 0)), **terms.entry(delta)})
        else:
            terms.require_same_strata(opening)

    def _append_remark(self, remark: Remark) -> None:
        body = self._body(EntryKind.BEGUN_AGAIN, Reservation("", 0))
        words: dict[str, Any] = {"file": remark.file, "person": remark.person, "reason": remark.reason}
        if remark.time_s is not None:
            words["time"] = remark.time_s
        self._store.append("", {**body, **words, **marked(remark.log)})

    def _refuse_above_promise(self, study: str) -> None:
        """Judge the study with the new entry in it; raising undoes the entry."""
        [spending] = [each for each in self._up_to_date().spending() if each.study == study]
        stratum = spending.beyond_promise()
        if stratum is not None:
            raise PromiseSpentError(
                f"this step would cost {stratum.value} patients of study {study[:12]}… more than epsilon "
                f"{epsilon(spending.promise.get(stratum, []), spending.delta):.3f}, which is what the plan promised "
                "them. Nothing was read or spent; the study is over at this site"
            )

    def _refuse_above_ceiling(self) -> None:
        """Judge the ledger with the new entry in it; raising undoes the entry."""
        spending = self._up_to_date().spending()
        if not self._affordable.allows(spending):
            raise BudgetExhaustedError(
                f"this step would bring a patient to epsilon {self._affordable.epsilon(spending):.3f}; the site's "
                f"ceiling is {self._affordable.ceiling:g}. Nothing was read or spent; the ceiling is in policy.toml"
            )

    def _up_to_date(self) -> Tally:
        """Return the tally of all rows; begun again where the rows are not those that were counted (an undone entry).

        Rows are verified once and never changed, so the last one counted stands for all before it.
        """
        rows = self._store.rows
        if self._counted > len(rows) or (self._counted and rows[self._counted - 1] is not self._last):
            self._tally, self._counted = Tally(), 0
        for row in rows[self._counted :]:
            self._tally.add(row.body)
            self._counted, self._last = row.number, row
        return self._tally

    def _close(self, kind: EntryKind, reservation: Reservation) -> None:
        if reservation not in self._open:
            raise LedgerInvalidError(
                f"attempt {reservation.attempt} is not an open reservation of this process, so it cannot become "
                f"{kind.value}; it stays charged"
            )
        with self._store.exclusive():
            self._store.append(reservation.study, self._body(kind, reservation))
        self._open.remove(reservation)

    def _body(self, kind: EntryKind, reservation: Reservation) -> dict[str, Any]:
        return {
            "kind": kind.value,
            "study": reservation.study,
            "attempt": reservation.attempt,
            "time": int(self._clock()),
        }


def charge(stratum: Stratum, *, sampling_rate: float, noise_multiplier: float, steps: int) -> Charge:
    """Return the cost of one attempt to the patients of one stratum. Raises: AccountingError."""
    return Charge(stratum, SampledGaussian(sampling_rate, noise_multiplier, steps))
