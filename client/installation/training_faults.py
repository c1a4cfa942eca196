"""What the hospital's staff are told of trainings that failed: when, of which study, and where in the code. No patient.

The federation is told nothing: such a round is answered with noise alone. ``fedward-site check`` reads this file.
"""

import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import Final

from pydantic import ConfigDict, TypeAdapter

from client.installation.folder import SiteFolder
from common.errors import FedwardError
from common.files import read_bounded, replace_atomically

KEPT: Final = 50  # of the last ones
MAX_BYTES: Final = 1 << 16
FILE: Final = "training-faults.json"

_log = logging.getLogger("fedward.site")


@dataclass(frozen=True)
class TrainingFault:
    """``fault``: kind and place in the code, never the text of an exception."""

    time_s: int
    plan: str
    round_number: int
    fault: str


_FILE_FORM: Final = TypeAdapter(list[TrainingFault], config=ConfigDict(strict=True, extra="forbid"))


def note_fault(folder: SiteFolder, *, plan: str, round_number: int, fault: str) -> None:
    """Keep a fault for the staff, and say it in the log; never raises, because the round goes on as if nothing was."""
    _log.error("training failed (%s): this round is answered with noise alone, and charged", fault)
    found = TrainingFault(int(time.time()), plan, round_number, fault)
    kept = [asdict(each) for each in (*training_faults(folder), found)][-KEPT:]
    try:
        folder.state.mkdir(mode=0o700, exist_ok=True)
        replace_atomically(folder.state / FILE, json.dumps(kept).encode(), 0o600)
    except (OSError, FedwardError):
        _log.error("training-faults.json cannot be written; is the disk full?")


def training_faults(folder: SiteFolder) -> list[TrainingFault]:
    """Return the last trainings that failed, oldest first; none where the file is missing or damaged."""
    try:
        found = _FILE_FORM.validate_json(read_bounded(folder.state / FILE, MAX_BYTES))
    except (OSError, FedwardError, ValueError):
        return []
    return found if all(each.fault.isprintable() and each.plan.isprintable() for each in found) else []
