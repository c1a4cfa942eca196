"""How many patients may go side by side: what one takes, what is free, and what an end for lack of memory taught.

    engines/PLAN.memory.json   bytes of one patient, measured before the first order on a made-up one; public
    engines/PLAN.limit.json    halved each time that memory ended at work, and kept; delete it after memory was added

Both are this machine's own. A file that cannot be read counts as none, with a line in the log. The agent reads this
page too, so it knows nothing of PyTorch.
"""

import logging
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from client.installation.folder import SiteFolder
from client.private_gradients.settings import MOST_PATIENTS
from common.errors import FedwardError
from common.files import read_bounded, replace_atomically
from common.plan.machines import SHARE, VALUE_BYTES, ahead_bytes, need_of, whole_scan_bytes
from common.plan.plan import StudyPlan
from common.plan.shape import longest_sum

LARGEST_BYTES: Final = 1 << 12
VECTORS: Final = 5  # network, received model, sum in 64 bits, teacher

_log = logging.getLogger("fedward.site")


class Measured(BaseModel):
    """``patient_bytes``: peak of one patient with as many rows as the plan allows, on ``device``."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: Literal["fedward-memory/1"] = "fedward-memory/1"
    device: Annotated[str, Field(max_length=16)]
    patient_bytes: Annotated[int, Field(ge=1, le=1 << 50)]


class Limit(BaseModel):
    """``at_once``: no more patients side by side than this."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: Literal["fedward-limit/1"] = "fedward-limit/1"
    at_once: Annotated[int, Field(ge=1, le=MOST_PATIENTS)]


File = TypeVar("File", bound=BaseModel)


def limit_of(folder: SiteFolder, plan: StudyPlan, *, device: str, free: int | None) -> int:
    """Return how many patients of a plan may go side by side now, at least 1.

    ``free``: bytes of memory of ``device`` that are free (``device_memory``); None where nobody says.
    """
    kept = _read(_limit_file(folder, plan), Limit)
    if free is None:
        by_memory = MOST_PATIENTS
    else:
        measured = measured_bytes(folder.engines, plan, device=device)
        patient = need_of(plan).patient_bytes if measured is None else measured + ahead_bytes(plan)
        vectors = VECTORS * VALUE_BYTES * longest_sum(plan)
        by_memory = int((SHARE * free - vectors - whole_scan_bytes(plan)) // patient)
    return max(1, min(MOST_PATIENTS, by_memory, kept.at_once if kept else MOST_PATIENTS))


def halve(folder: SiteFolder, plan: StudyPlan, *, at_once: int) -> int:
    """Keep half of ``at_once``, at least 1, for the next attempt and all after it; return it.

    Raises: what writing a file raises.
    """
    folder.engines.mkdir(mode=0o700, exist_ok=True)
    half = max(1, at_once // 2)
    replace_atomically(_limit_file(folder, plan), Limit(at_once=half).model_dump_json().encode() + b"\n", 0o600)
    return half


def keep_measured(engines: Path, plan: StudyPlan, *, device: str, patient_bytes: int) -> None:
    """Keep what one patient takes. Raises: what writing a file raises."""
    engines.mkdir(mode=0o700, exist_ok=True)
    measured = Measured(device=device, patient_bytes=max(1, patient_bytes))
    replace_atomically(_measured_file(engines, plan), measured.model_dump_json().encode() + b"\n", 0o600)


def measured_bytes(engines: Path, plan: StudyPlan, *, device: str) -> int | None:
    """Return what one patient was measured to take on ``device``; None where nobody measured."""
    known = _read(_measured_file(engines, plan), Measured)
    return known.patient_bytes if known is not None and known.device == device else None


def _read(path: Path, kind: type[File]) -> File | None:
    if not path.exists():
        return None
    try:
        return kind.model_validate_json(read_bounded(path, LARGEST_BYTES))
    except (FedwardError, ValidationError):
        _log.warning("%s: damaged; it counts as none", path.name)
        return None


def _limit_file(folder: SiteFolder, plan: StudyPlan) -> Path:
    return folder.engines / f"{plan.digest()}.limit.json"


def _measured_file(engines: Path, plan: StudyPlan) -> Path:
    return engines / f"{plan.digest()}.memory.json"
