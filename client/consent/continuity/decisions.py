"""Every decision that a lost file begins again: audit log and ledger each show it when the other is lost."""

from dataclasses import dataclass

from client.consent.continuity.losses import Traces


@dataclass(frozen=True)
class Decision:
    """``file`` began again by decision of ``person``, because of ``reason``, at ``time_s`` (seconds since 1970)."""

    file: str
    person: str
    reason: str
    time_s: int


def decisions(traces: Traces) -> list[Decision]:
    """Return all of them, oldest first; one that both files show is one."""
    files = [each for each in (traces.audit, traces.ledger) if each is not None]
    entries = [entry for file in files for entry in file.begun_again]
    found: dict[tuple[str, str, str], Decision] = {}
    for entry in entries:
        said = (str(entry["file"]), str(entry["person"]), str(entry["reason"]))
        found.setdefault(said, Decision(*said, int(entry["time"])))
    return sorted(found.values(), key=lambda decision: decision.time_s)
