"""What parent and worker say to each other: a small map and, for records, the raw bytes of one array.

    frame = head length (4 bytes, big endian) || body length (8 bytes) || head (msgpack) || body

msgpack maps of numbers, words and bytes; never pickle, because a worker may have been taken over by the file it read.
"""

import os
import select
import struct
import time
from typing import Any

from client.dicom.packing import packed, unpacked

PREFIX = struct.Struct(">IQ")
MAX_HEAD_BYTES = 1 << 20


class ChannelClosedError(Exception):
    """The other side is gone, is silent for too long, or does not keep to the form."""


def pack(head: dict[str, Any], body: bytes | memoryview = b"") -> list[bytes | memoryview]:
    """Return the parts of one frame."""
    content = packed(head)
    return [PREFIX.pack(len(content), len(body)), content, body]


def send(descriptor: int, head: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """Write one frame to a pipe.

    Raises: ChannelClosedError.
    """
    prefix, content, body = pack(head, body)
    try:
        for part in (bytes(prefix) + bytes(content), body):
            view = memoryview(part)
            while view:
                view = view[os.write(descriptor, view) :]
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
