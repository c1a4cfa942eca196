"""What staff decided about persons: where a person comes from when the scans do not say, and who is one person.

Scans of an archive without identifiers say "ANONYMOUS" for everybody, or nothing. Whether a study or a folder is then
a person, or whether pictures show names, is known to the hospital alone, so it is a decision with a name behind it
(``person_decisions`` keeps it).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Reference = tuple[str, str]  # keyed PatientID, keyed issuer ("" = not said)


class PersonFrom(StrEnum):
    """Whom a file is about when its PatientID is missing or a placeholder."""

    IDENTIFIER = "identifier"
    STUDY = "study"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class PersonRules:
    """The decision: ``placeholders`` are words of this archive that stand for no person, as ``likeness`` writes them.

    ``whole_ultrasound``: every ultrasound picture was looked at, and those without regions, which nothing masks, show
    no names. ``decided_by``: the name of who decided. ``merged``: pairs of identifiers of one person, keyed.
    """

    person_from: PersonFrom = PersonFrom.IDENTIFIER
    placeholders: tuple[str, ...] = ()
    whole_ultrasound: bool = False
    decided_by: str = ""
    merged: tuple[tuple[Reference, Reference], ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """Return what a worker needs."""
        return {
            "person_from": self.person_from.value,
            "placeholders": list(self.placeholders),
            "whole_ultrasound": self.whole_ultrasound,
        }

    @classmethod
    def from_wire(cls, content: Mapping[str, Any]) -> "PersonRules":
        """Undo ``to_wire``."""
        return cls(
            PersonFrom(content["person_from"]), tuple(content["placeholders"]), bool(content.get("whole_ultrasound"))
        )

    def digest(self) -> str:
        """Return what the reading of a file depends on: files read under other rules are read again."""
        return hashlib.sha256(json.dumps(self.to_wire(), sort_keys=True).encode()).hexdigest()
