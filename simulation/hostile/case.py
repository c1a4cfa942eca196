"""One hostile case: what is written, and which verdicts on each of its files are right."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client.dicom.reject import RejectCode

ACCEPTED = "accepted"

Outcomes = frozenset[str]


def any_of(*outcomes: RejectCode | str) -> Outcomes:
    """Name the verdicts that are right for one file."""
    return frozenset(str(outcome) for outcome in outcomes)


@dataclass(frozen=True, slots=True)
class HostileCase:
    """A case by its name (a sentence with underscores), its files in the order of their names, and their verdicts.

    ``make(folder, name)`` writes the files into the empty ``folder``; identifiers are derived from ``name``, so no two
    cases share one. ``outcomes`` has one set for each file that a walk of the folder meets.
    """

    name: str
    make: Callable[[Path, str], None]
    outcomes: tuple[Outcomes, ...]


def one_file(name: str, content: Callable[[str], bytes], *outcomes: RejectCode | str) -> HostileCase:
    """Make a case of one file, ``content(name)``."""

    def make(folder: Path, case_name: str) -> None:
        (folder / "image.dcm").write_bytes(content(case_name))

    return HostileCase(name, make, (any_of(*outcomes),))
