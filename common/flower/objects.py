"""Large arrays through Flower 1.41 without second copies: what travels is a model of 100 MB and more.

Flower cuts an array into chunks of 5 MB. Receiving, it holds all chunks, then a growing buffer, then the bytes of that
buffer: three times the array. Sending, it cuts every chunk before the first has left: twice. Here:

    received    chunks go into one buffer, and each becomes a view of it: once the array
    sent        a chunk is cut when one of the two senders is free for it: the array, and two chunks
    answers     of the HTTP client go when they were read, not when Python next looks for cycles

Nothing else changes: the same bytes, identifiers and checks. Whoever handles arrays of Flower's calls ``spare_memory``
once, and gives ``ReleasedResponses`` to its HTTP client; this file leans on Flower's internals, so it demands exactly
one version.
"""

import concurrent.futures
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, cast

import httpx
from flwr.app import Array
from flwr.app.message.arraychunk import ArrayChunk
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_body,
    get_object_children_ids_from_object_content,
)
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from common.files import parsed_json
from common.flower.environment import require_flower

SENDERS: Final = 2  # as many as Flower's own default
# an array may name one chunk any number of times: a small message, an enormous buffer
LARGEST_ARRAY_BYTES: Final = 1 << 33
_bytes_left: ContextVar[list[int] | None] = ContextVar("bytes left for arrays", default=None)

_flowers_inflate: Final = cast(
    "Callable[[type[Array], bytes, dict[str, InflatableObject]], Array]", vars(Array)["inflate"].__func__
)


def spare_memory() -> None:
    """Put the two functions of this file in the place of Flower's own; calling it again changes nothing.

    Raises: RuntimeUnsuitableError if another version of Flower is installed.
    """
    require_flower()
    Array.inflate = classmethod(_inflate)  # type: ignore[assignment, method-assign]
    inflatable_utils.push_object_contents_from_iterable = _push


def _inflate(cls: type[Array], object_content: bytes, children: dict[str, InflatableObject] | None = None) -> Array:
    """Return the array whose chunks are ``children``; their data are parts of the array's afterwards.

    Raises: ValueError for what Flower refuses, for an array of more than ``LARGEST_ARRAY_BYTES``, and for one beyond
    what ``arrays_of_at_most`` allows.
    """
    chunks = {name: chunk for name, chunk in (children or {}).items() if isinstance(chunk, ArrayChunk)}
    hollow: dict[str, InflatableObject] = {name: ArrayChunk(memoryview(b"")) for name in children or {}}
    array = _flowers_inflate(cls, object_content, hollow)  # every check, and no data
    names = get_object_children_ids_from_object_content(object_content)
    order = [names[place] for place in parsed_json(get_object_body(object_content, cls))["arraychunk_ids"]]
    sizes = {name: len(chunk.data) for name, chunk in chunks.items()}
    _charge(sum(sizes[name] for name in order))
    whole, places = io.BytesIO(), dict[str, int]()
    for name in order:
        if name in places:  # a chunk that was named before is in the buffer already, and nowhere else
            with whole.getbuffer() as so_far:
                repeated = bytes(so_far[places[name] : places[name] + sizes[name]])
            whole.write(repeated)
        else:
            places[name] = whole.tell()
            whole.write(chunks[name].data)
            chunks[name].data = memoryview(b"")
    array.data = whole.getvalue()  # the buffer itself, not a copy: nothing is written any more
    for name, start in places.items():  # another array may be made of the same chunk
        chunks[name].data = memoryview(array.data)[start : start + sizes[name]]
    return array


@contextmanager
def arrays_of_at_most(total_bytes: int) -> Iterator[None]:
    """Refuse arrays that are put together here (in this thread) once they would exceed ``total_bytes`` all together."""
    token = _bytes_left.set([total_bytes])
    try:
        yield
    finally:
        _bytes_left.reset(token)


def _charge(size: int) -> None:
    left = _bytes_left.get()
    most = LARGEST_ARRAY_BYTES if left is None else min(LARGEST_ARRAY_BYTES, left[0])
    if size > most:
        raise ValueError(f"an array of {size} bytes; at most {most} are taken")
    if left is not None:
        left[0] -= size


def _push(
    object_contents: Iterable[tuple[str, bytes]],
    push_object_fn: Callable[[str, bytes], None],
    *,
    max_concurrent_pushes: int = SENDERS,
) -> None:
    """Push contents while they are made, some at a time. Raises: what ``push_object_fn`` raises."""
    most = max(1, max_concurrent_pushes)
    waiting: set[concurrent.futures.Future[None]] = set()
    executor = concurrent.futures.ThreadPoolExecutor(max_workers=most)
    try:
        for name, content in object_contents:
            waiting.add(executor.submit(push_object_fn, name, content))
            del content  # the sender's alone: it must not outlive the sending
            if len(waiting) >= most:
                done, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    future.result()
        for future in concurrent.futures.as_completed(waiting):
            future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


class ReleasedResponses:
    """Lets every response of Flower's HTTP client go at once (the form of ``ProtobufClientInterceptor``).

    A response of httpx 0.28 and its stream refer to each other, so it stays with its 5 MB, and with the request that it
    answers, until Python looks for cycles: by then that is a whole model more.
    """

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Return the response, read as a whole, without its stream."""
        response = call_next(context)
        if response.is_closed:
            response.stream = httpx.ByteStream(b"")
        return response
