"""The one task in work, on disk: after kill -9 the next agent answers for it at once.

Without this the SuperNode would wait a minute for a heartbeat before it takes the next message, and the site would miss
the rounds of that minute. The task itself is never begun again: work may have been done for it, and work costs privacy.
What must survive is the death of a process, not of the machine (the SuperNode forgets everything then): no fsync.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app.metadata import Metadata

from common.errors import FileTooLargeError, FileUnreadableError
from common.files import parsed_json, read_bounded

_MAX_BYTES = 64 * 1024
_FIELDS = (
    "run_id",
    "message_id",
    "src_node_id",
    "dst_node_id",
    "reply_to_message_id",
    "group_id",
    "created_at",
    "ttl",
    "message_type",
    "src_task_id",
    "dst_task_id",
)


@dataclass(frozen=True)
class Claim:
    """A task that was taken: its token, and of its message what a reply needs (None: it was not pulled yet)."""

    token: str
    metadata: Metadata | None


def write_claim(path: Path, token: str, metadata: Metadata | None = None) -> None:
    """Keep the claim in ``path`` (0600) instead of the one before."""
    kept = {name: getattr(metadata, name) for name in _FIELDS} if metadata is not None else None
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"token": token, "metadata": kept}, file)
    fresh.replace(path)


def read_claim(path: Path) -> Claim | None:
    """Return the claim that was left behind, or None: there is none, or it cannot be read and the minute must pass."""
    try:
        kept: dict[str, Any] = parsed_json(read_bounded(path, _MAX_BYTES))
        metadata = kept["metadata"]
        return Claim(str(kept["token"]), Metadata(**metadata) if metadata is not None else None)
    except (FileUnreadableError, FileTooLargeError, ValueError, KeyError, TypeError):
        return None


def drop_claim(path: Path) -> None:
    """Forget the claim: the task was answered, or nobody waits for it."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
