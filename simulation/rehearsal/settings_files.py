"""Changing a commented settings file as a person does: the line of one key, everything else as it was."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from simulation.errors import RehearsalError


def change(file: Path, values: Mapping[str, object]) -> None:
    """Set keys of a TOML file that has a line for each. Raises: RehearsalError where it has not exactly one."""
    text = file.read_text()
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^#? ?{re.escape(key)} *= *[^#\n]*", f"{key} = {json.dumps(value)} ", text)
        if count != 1:
            raise RehearsalError(f"{file}: {count} lines set {key}, expected one")
    file.write_text(text)
