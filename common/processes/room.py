"""Whether a folder can be written at all: asked by ``status``, because a full disk keeps no note that it is full."""

import os
import shutil
from pathlib import Path
from typing import Final

LEAST_FREE_BYTES: Final = 16 << 20  # below it databases and logs fail one after the other


def lack_of(folder: Path) -> str:
    """Return a sentence where nothing more can be written to ``folder``; empty where it can. Never raises."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{folder} cannot be looked at ({error.strerror}); check rights and mounts"
    if free < LEAST_FREE_BYTES:
        return (
            f"the disk of {folder} is full ({free / 1e6:.1f} MB free): nothing is lost, and nothing goes on "
            "before there is room again"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"this user may not write to {folder}: run as the user who owns it, and see its rights"
    return ""
