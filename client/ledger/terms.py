"""On what terms a study began at this site, as the first of its entries says: its promise, and who is in which stratum.

An attempt may never bring a stratum above what the plan promised it, whatever is ordered in whatever order: a second
ceiling beside the site's. The strata of a study are frozen for the study: privacy is proved for disjoint strata, so a
patient who changed from one to another would have been charged for neither (``docs/privacy.md`` section 4).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from client.ledger.budget import Charge, Stratum
from client.ledger.errors import StrataChangedError
from common.privacy.accounting import SampledGaussian


@dataclass(frozen=True)
class LogMark:
    """A line of the audit log that was there: its number from 1 (0: none yet) and its hash (64 hexadecimal digits)."""

    number: int
    hash: str


@dataclass(frozen=True)
class StudyTerms:
    """What is entered before a study's first charge.

    promise: all charges of the study as planned. strata: keyed digest (32 bytes) of who is in which stratum.
    log: the newest line of the audit log then, so that a log that began again since is noticed.
    """

    promise: Sequence[Charge]
    strata: bytes
    log: LogMark

    def entry(self, delta: float) -> dict[str, Any]:
        """Return what the entry holds beside kind, study and time."""
        return {"delta": delta, "promise": packed(self.promise), "strata": self.strata.hex(), **marked(self.log)}

    def require_same_strata(self, opening: Mapping[str, Any]) -> None:
        """Raise StrataChangedError unless the study's first entry was made with the same strata."""
        if opening["strata"] != self.strata.hex():
            raise StrataChangedError(
                f"study {str(opening['study'])[:12]}… began here with other patients or other strata than the cache "
                "gives now: it goes no further at this site. Restore the study's list of patients (the folder "
                "`studies` in the site folder) or the old cache from a backup, and approve the plan again; without "
                "them, take the approval back with `fedward-site approve --withdraw` and tell the coordinator"
            )


def promised(events: Mapping[Stratum, Iterable[SampledGaussian]]) -> list[Charge]:
    """Return the charges of a whole study, from its events by stratum."""
    return [Charge(stratum, event) for stratum, of_stratum in events.items() for event in of_stratum]


def marked(log: LogMark) -> dict[str, Any]:
    """Return a mark of the audit log as an entry holds it."""
    return {"audit_number": log.number, "audit_hash": log.hash}


def packed(charges: Iterable[Charge]) -> list[dict[str, Any]]:
    """Return charges as entries hold them."""
    return [
        {
            "stratum": each.stratum.value,
            "sampling_rate": each.event.sampling_rate,
            "noise_multiplier": each.event.noise_multiplier,
            "steps": each.event.steps,
        }
        for each in charges
    ]
