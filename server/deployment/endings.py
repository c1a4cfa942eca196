"""How the last run of a study ended, in a small file beside its journal: for its keeper, and for people."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import FedwardError
from common.files import parsed_json, read_bounded, replace_atomically
from server.study.events import RunState

FILE_NAME: Final = "ended.json"
MAX_BYTES: Final = 64 * 1024
# Starting again would change nothing, or would spend privacy on sums that cannot be right: a person must act.
FINAL: Final = frozenset(
    {
        RunState.FINISHED,
        RunState.NOT_SCORED,
        RunState.NO_ATTEMPT_LEFT,
        RunState.NO_ORDER_LEFT,
        RunState.UNSOUND_SUMS,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Ending:
    """``state``: how the run ended, None where it failed before it could say; ``sentence``: for a person."""

    state: RunState | None
    sentence: str
    unix_s: float

    @property
    def is_final(self) -> bool:
        """Whether the study is not started again by itself."""
        return self.state in FINAL


def write_ending(study_folder: Path, state: RunState | None, sentence: str) -> None:
    """Note how a run ended. Raises: FileUnreadableError."""
    document = {"state": state and state.value, "sentence": sentence, "unix_s": time.time()}
    replace_atomically(study_folder / FILE_NAME, json.dumps(document).encode())


def read_ending(study_folder: Path) -> Ending | None:
    """Return the last ending; None where there is none (a run goes on, was killed, or never began)."""
    try:
        document = parsed_json(read_bounded(study_folder / FILE_NAME, MAX_BYTES))
        state = document["state"]
        return Ending(None if state is None else RunState(state), str(document["sentence"]), float(document["unix_s"]))
    except (FedwardError, ValueError, KeyError, TypeError, OverflowError):  # a number may be as large as it likes
        return None


def forget_ending(study_folder: Path) -> None:
    """Remove the note: a new run begins."""
    (study_folder / FILE_NAME).unlink(missing_ok=True)
