"""The fenced process that touches files: one loop, started by ``pool.py``, ended by the kernel if a file runs away.

It gets its settings and keys through its standard input (never arguments or environment), the scan folder as an open
descriptor (never a name), and answers on a second pipe. Standard output and standard error lead to /dev/null: pydicom
and C libraries print values and paths there. No core file, no file writing, bounded memory and processor time.
"""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from client.dicom.limits import fence_worker
from client.dicom.person_rules import PersonRules
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.settings import IngestSettings
from client.processes.frames import ChannelClosedError, receive, send

Reply = tuple[dict[str, Any], npt.NDArray[Any] | None]


@dataclass(frozen=True, slots=True)
class Session:
    """What a worker was given at its start. ``roots``: the scan folder, then that of segmentation files, if any.

    ``alive`` tells the parent that long work goes on.
    """

    roots: tuple[int, ...]
    settings: IngestSettings
    pseudonyms: Pseudonyms
    alive: Callable[[], None]


Task = Callable[[Session, Mapping[str, Any]], Iterator[Reply]]


def serve(tasks: Mapping[str, Task]) -> None:
    """Answer requests until the parent closes the pipe; each request names one of ``tasks``."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    requests, replies = sys.stdin.fileno(), int(sys.argv[1])
    roots = tuple(int(descriptor) for descriptor in sys.argv[2:])
    try:
        start, _ = receive(requests)
        fence_worker(start["extra_memory_bytes"])
        settings = IngestSettings.model_validate_json(start["settings"])
        alive = partial(send, replies, {"alive": True})
        session = Session(
            roots, settings, Pseudonyms(start["identity_key"], PersonRules.from_wire(start["persons"])), alive
        )
        alive()
        while True:
            request, sent = receive(requests, max_body_bytes=start["max_request_bytes"])
            for head, array in tasks[request["task"]](session, {**request, "body": sent}):
                body = b"" if array is None else np.ascontiguousarray(array).data.cast("B")
                send(replies, head, body)
    except ChannelClosedError:
        return
