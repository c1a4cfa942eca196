"""What a process and its child say to each other through pipes: a small map and the raw bytes of arrays.

    frame = head length (4 bytes, big endian) || body length (8 bytes) || head (msgpack) || body

msgpack maps of numbers, words and bytes; never pickle, because a worker may have been taken over by the file it read.
"""

import os
import select
import struct
import time
from collections.abc import Callable
from typing import Any

from client.processes.packing import packed, unpacked

PREFIX = struct.Struct(">IQ")
MAX_HEAD_BYTES = 1 << 20


class ChannelClosedError(Exception):
    """The other side is gone, is silent for too long, or does not keep to the form."""


def send(
    descriptor: int, head: dict[str, Any], *body: bytes | memoryview, wait: Callable[[], None] | None = None
) -> None:
    """Write one frame to a pipe; its body is the parts of ``body`` (flat bytes) one after the other.

    ``wait``: called when a pipe that does not block is full; returns when it is worth another try, or raises.
    Raises: ChannelClosedError.
    """
    content = packed(head)
    prefix = PREFIX.pack(len(content), sum(len(part) for part in body))
    try:
        for part in (prefix + content, *body):
            view = memoryview(part)
            while view:
                try:
                    view = view[os.write(descriptor, view) :]
                except BlockingIOError:
                    if wait is None:
                        raise
                    wait()
    except OSError:
        raise ChannelClosedError from None


def receive(
    descriptor: int, *, max_body_bytes: int = 0, timeout_s: float | None = None
) -> tuple[dict[str, Any], bytearray]:
    """Read one frame from a pipe; sizes are checked before anything is allocated.

    Raises: ChannelClosedError (end of stream, malformed frame), TimeoutError.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    head_bytes, body_bytes = PREFIX.unpack(_read_exactly(descriptor, PREFIX.size, deadline))
    if head_bytes > MAX_HEAD_BYTES or body_bytes > max_body_bytes:
        raise ChannelClosedError
    content = _read_exactly(descriptor, head_bytes, deadline)
    body = _read_exactly(descriptor, body_bytes, deadline)
    try:
        return unpacked(content), body
    except ValueError:
        raise ChannelClosedError from None


def _read_exactly(descriptor: int, count: int, deadline: float | None) -> bytearray:
    content = bytearray(count)
    view = memoryview(content)
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while view:
        if deadline is not None and not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        got = os.readv(descriptor, [view])
        if got == 0:
            raise ChannelClosedError
        view = view[got:]
    return content
