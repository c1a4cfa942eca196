"""What the agent demands of a task before any work is done for it.

In order, because the first that fails decides the answer:
(1) the bundle (FAB) is the pointer that this installation makes itself, byte for byte: nothing of it is ever unpacked;
(2) the type of the message is one that ``client.app`` knows;
(3) the message still has time to live: whoever asked has given up otherwise, and work costs privacy.
Everything about plan, order and round is the site's own check (``client.site``), whose refusals are signed.
"""

import hashlib
import hmac
from enum import IntEnum
from typing import Final

from common.flower.messages import HELLO_TYPE, MESSAGE_TYPES
from common.flower.pointer import pointer_digest

KNOWN_TYPES: Final = frozenset({HELLO_TYPE, *MESSAGE_TYPES.values()})


class Rejection(IntEnum):
    """The fixed codes that the coordinator sees instead of an answer; beside ``client.app.FAULT_CODE`` (1001)."""

    OTHER_BUNDLE = 1002
    UNKNOWN_TYPE = 1003
    EXPIRED = 1004
    INTERRUPTED = 1005  # the agent ended in the middle of the task; it is never begun again


def check_task(bundle: bytes, message_type: str, *, expires_at_s: float, now_s: float) -> Rejection | None:
    """Return why a task is rejected, or None when the site may look at it. Times: seconds since 1970."""
    # (1) compared with a digest of our own making; what Flower says the digest is does not matter
    if not hmac.compare_digest(hashlib.sha256(bundle).hexdigest(), pointer_digest()):
        return Rejection.OTHER_BUNDLE
    # (2)
    if message_type not in KNOWN_TYPES:
        return Rejection.UNKNOWN_TYPE
    # (3)
    if not now_s < expires_at_s:  # also where it is not a number
        return Rejection.EXPIRED
    return None
