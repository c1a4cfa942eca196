"""Which supervised processes keep ending, and why: written by the supervisor, read by ``status`` and ``check``.

A process that is started again every ten seconds lives at most moments at which somebody looks; this says that it does
no work. The file may be missing (disk full): then nothing is known, and the supervisor's own words are on its terminal.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from common.errors import FedwardError
from common.files import parsed_json, read_bounded, replace_atomically

FILE_NAME: Final = "failing.json"
MAX_BYTES: Final = 64 * 1024
MAX_WORDS: Final = 300


def write_failing(state: Path, reasons: Mapping[str, str]) -> None:
    """Keep the reasons by the process's name; an empty list is kept as no file. Never raises."""
    with suppress(FedwardError, OSError):
        if reasons:
            cut = {name: words[:MAX_WORDS] for name, words in reasons.items()}
            replace_atomically(state / FILE_NAME, json.dumps(cut).encode(), 0o600)
        else:
            (state / FILE_NAME).unlink(missing_ok=True)


def failing(state: Path) -> dict[str, str]:
    """Return why each process that keeps ending does so; nothing where no supervisor runs. Never raises."""
    if not is_supervised(state):
        return {}
    try:
        found = parsed_json(read_bounded(state / FILE_NAME, MAX_BYTES))
    except (FedwardError, ValueError, OverflowError, OSError):
        return {}
    return {str(name): str(words) for name, words in found.items()} if isinstance(found, dict) else {}


def is_supervised(state: Path) -> bool:
    """Tell whether a supervisor runs, also one whose processes are still starting. Never raises."""
    try:
        os.kill(int(read_bounded(state / "supervisor.pid", 64)), 0)
    except (FedwardError, ValueError, OverflowError, OSError):
        return False
    return True
