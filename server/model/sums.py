"""Opened sums on disk: with them, and the journal, anybody can compute the model again.

A sum is already released when it is written (every site of the round could have it), so the files hold nothing secret;
they are what an auditor replays.
"""

import hashlib
from pathlib import Path

import numpy as np

from common.secagg.accumulator import SummedVector
from common.secagg.vector import VectorSpec
from server.errors import StudyFolderInvalidError
from server.model.tensor_file import TensorFile, write_tensors

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
    metadata = {"format": FORMAT, "attempt": str(attempt), "participants": str(total.participants)}
    write_tensors(folder / sum_name(attempt), {"body_sum": total.body_sum, "meta_sum": total.meta}, metadata)
    return sum_name(attempt)


def read_sum(folder: Path, attempt: int, *, spec: VectorSpec, participants: int, digest: bytes) -> SummedVector:
    """Read the sum of an attempt; ``digest`` is the journal's ``sum_digest``.

    Raises: StudyFolderInvalidError for a file that is missing, damaged, or not the sum that was opened.
    """
    path = folder / sum_name(attempt)
    limit = 4 * spec.body_length + 8 * spec.meta_words + _OVERHEAD_BYTES
    try:
        stored = TensorFile.open(path, limit)
        body, meta = stored.read("body_sum"), stored.read("meta_sum")
    except ValueError:
        raise StudyFolderInvalidError(f"{path}: damaged; restore it from a backup") from None
    if body.dtype != np.int32 or meta.dtype != np.uint64:
        raise StudyFolderInvalidError(f"{path}: not a sum of this version")
    found = hashlib.sha256(meta.data)
    found.update(body.data)
    if found.digest() != digest:
        raise StudyFolderInvalidError(f"{path}: not the sum that the journal says was opened")
    return SummedVector(meta, body, participants, spec.lattice)
