"""States of the model on disk: written whole or not at all, and before the journal's row that names them.

A crash leaves a file that no row names, which is ignored, or a row whose file is complete. The journal keeps the
SHA-256 of each file, so a changed checkpoint is not taken for the state.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.errors import StudyFolderInvalidError
from common.files import read_bounded, replace_atomically
from server.model_state import ModelState
from server.optimiser import OptimiserState

FORMAT = "fedward-checkpoint/1"
KEPT = 3
_OVERHEAD_BYTES = 64 * 1024
_TENSORS = ("parameters", "average", "best", "first", "second")


def checkpoint_name(attempt: int) -> str:
    """Return the file name of the state after an attempt was applied."""
    return f"after-{attempt:06}.safetensors"


def write_checkpoint(folder: Path, state: ModelState) -> str:
    """Write the state, durable and complete or not at all; return the SHA-256 (hexadecimal) of the file.

    Raises: FileUnreadableError.
    """
    tensors = {
        "parameters": state.parameters,
        "average": state.average,
        "best": state.best,
        "first": state.optimiser.first,
        "second": state.optimiser.second,
    }
    facts = {
        "phase": state.phase,
        "round_number": state.round_number,
        "attempt": state.attempt,
        "finished": state.finished,
        "steps": state.optimiser.steps,
        "best_score": state.best_score.hex(),
        "scores_without_gain": state.scores_without_gain,
    }
    # one metadata entry, because safetensors writes several in a different order each time
    content = save(tensors, {"fedward": json.dumps({"format": FORMAT, **facts}, sort_keys=True)})
    replace_atomically(folder / checkpoint_name(state.attempt), content)
    return hashlib.sha256(content).hexdigest()


def read_checkpoint(folder: Path, attempt: int, digest: str, *, num_parameters: int) -> ModelState:
    """Read the state after ``attempt``; ``digest`` is the one in the journal.

    Raises: StudyFolderInvalidError for a missing, changed or foreign file.
    """
    path = folder / checkpoint_name(attempt)
    content = read_bounded(path, len(_TENSORS) * 4 * num_parameters + _OVERHEAD_BYTES)
    if hashlib.sha256(content).hexdigest() != digest:
        raise StudyFolderInvalidError(f"{path}: not the file that the journal names; restore it from a backup")
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        facts = json.loads(header["__metadata__"]["fedward"])
    except (SafetensorError, ValueError, KeyError):
        raise StudyFolderInvalidError(f"{path}: not a checkpoint of this version") from None
    return ModelState(
        phase=facts["phase"],
        round_number=facts["round_number"],
        attempt=facts["attempt"],
        finished=facts["finished"],
        parameters=tensors["parameters"],
        average=tensors["average"],
        best=tensors["best"],
        best_score=float.fromhex(facts["best_score"]),
        scores_without_gain=facts["scores_without_gain"],
        optimiser=OptimiserState(facts["steps"], tensors["first"], tensors["second"]),
    )


def prune_checkpoints(folder: Path, applied: list[int]) -> None:
    """Delete all but the last ``KEPT`` states: each can be computed again from the sums.

    ``applied``: attempts in the journal, in order; only files that they name are deleted.
    """
    for attempt in applied[:-KEPT]:
        (folder / checkpoint_name(attempt)).unlink(missing_ok=True)


def same_state(one: ModelState, other: ModelState) -> bool:
    """Tell whether two states are equal to the last bit."""
    pairs = [
        (one.parameters, other.parameters),
        (one.average, other.average),
        (one.best, other.best),
        (one.optimiser.first, other.optimiser.first),
        (one.optimiser.second, other.optimiser.second),
    ]
    return _numbers(one) == _numbers(other) and all(np.array_equal(a, b) for a, b in pairs)


def _numbers(state: ModelState) -> tuple[object, ...]:
    scores = state.best_score, state.scores_without_gain
    return state.phase, state.round_number, state.attempt, state.finished, state.optimiser.steps, scores
