"""Opened sums on disk: with them, and the journal, anybody can compute the model again.

A sum is already released when it is written (every site of the round could have it), so the files hold nothing secret;
they are what an auditor replays.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.errors import StudyFolderInvalidError
from common.files import read_bounded, replace_atomically
from common.secagg.vector import SummedVector, VectorSpec

FORMAT = "fedward-sum/1"
_OVERHEAD_BYTES = 4096


def sum_name(attempt: int) -> str:
    """Return the file name of an attempt's sum."""
    return f"sum-{attempt:06}.safetensors"


def write_sum(folder: Path, attempt: int, total: SummedVector) -> str:
    """Write the sum of an attempt, durable and complete or not at all; return its file name.

    Tensors: body_sum (body_length,) int32, meta_sum (meta_words,) uint64.
    Raises: FileUnreadableError.
    """
    tensors: dict[str, NDArray[Any]] = {"body_sum": np.ascontiguousarray(total.body_sum), "meta_sum": total.meta}
    metadata = {"format": FORMAT, "attempt": str(attempt), "participants": str(total.participants)}
    replace_atomically(folder / sum_name(attempt), save(tensors, metadata))
    return sum_name(attempt)


def read_sum(folder: Path, attempt: int, *, spec: VectorSpec, participants: int, digest: bytes) -> SummedVector:
    """Read the sum of an attempt; ``digest`` is the journal's ``sum_digest``.

    Raises: StudyFolderInvalidError for a file that is missing, damaged, or not the sum that was opened.
    """
    path = folder / sum_name(attempt)
    limit = 4 * spec.body_length + 8 * spec.meta_words + _OVERHEAD_BYTES
    try:
        tensors = load(read_bounded(path, limit))
    except (SafetensorError, ValueError):
        raise StudyFolderInvalidError(f"{path}: damaged; restore it from a backup") from None
    body, meta = tensors.get("body_sum", np.empty(0)), tensors.get("meta_sum", np.empty(0))
    if body.dtype != np.int32 or meta.dtype != np.uint64:
        raise StudyFolderInvalidError(f"{path}: not a sum of this version")
    if hashlib.sha256(meta.tobytes() + body.data.cast("B")).digest() != digest:
        raise StudyFolderInvalidError(f"{path}: not the sum that the journal says was opened")
    return SummedVector(meta, body, participants, spec.lattice)
