"""A study's process tells the executor that it has loaded everything and can begin a task at once."""

import os
from pathlib import Path

from common.errors import FedwardError
from common.files import read_bounded, replace_atomically
from server.federation.folder import FederationFolder


def say_ready(folder: FederationFolder, study: str) -> None:
    """Note that this very process is ready. Raises: FileUnreadableError."""
    replace_atomically(_file(folder, study), str(os.getpid()).encode())


def is_ready(folder: FederationFolder, study: str, process: int) -> bool:
    """Tell whether the process with this id is ready; a note of an earlier one does not count."""
    try:
        return read_bounded(_file(folder, study), 64) == str(process).encode()
    except FedwardError:
        return False


def _file(folder: FederationFolder, study: str) -> Path:
    return folder.state / f"study-{study}.ready"
