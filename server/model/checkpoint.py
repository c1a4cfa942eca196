"""States of the model on disk: written whole or not at all, and before the journal's row that names them.

A crash leaves a file that no row names, which is ignored, or a row whose file is complete. The journal keeps the
SHA-256 of each file, so a changed checkpoint is not taken for the state.

What is equal is written once: ``stands_for`` in the file says which tensor to read for one that is not there (the
average is the model itself after the first round of a phase); an optimiser's memory that is empty stands for zeros.
Format 1 had neither, and is read all the same.
"""

import json
from pathlib import Path
from typing import Any, Final

from common.files import parsed_json
from server.errors import StudyFolderInvalidError
from server.model.blocks import Weights, same_bits
from server.model.optimiser import OptimiserState
from server.model.state import StateOf
from server.model.tensor_file import TensorFile, write_tensors

FORMAT: Final = "fedward-checkpoint/2"
READABLE: Final = frozenset({FORMAT, "fedward-checkpoint/1"})
KEPT: Final = 3
_OVERHEAD_BYTES: Final = 64 * 1024
_TENSORS: Final = ("parameters", "average", "best", "first", "second")


def checkpoint_name(attempt: int) -> str:
    """Return the file name of the state after an attempt was applied."""
    return f"after-{attempt:06}.safetensors"


def write_checkpoint(folder: Path, state: StateOf[Weights]) -> str:
    """Write the state block by block, durable and complete or not at all; return the SHA-256 (hexadecimal) of the file.

    Raises: FileUnreadableError, and what computing a block raises.
    """
    tensors: dict[str, Weights] = {}
    stands_for: dict[str, str] = {}
    for name, vector in _vectors(state).items():
        same = next((written for written, other in tensors.items() if other is vector and vector.size), None)
        if same is None:
            tensors[name] = vector
        else:
            stands_for[name] = same
    facts = {
        "phase": state.phase,
        "round_number": state.round_number,
        "attempt": state.attempt,
        "finished": state.finished,
        "steps": state.optimiser.steps,
        "best_score": state.best_score.hex(),
        "scores_without_gain": state.scores_without_gain,
        "stands_for": stands_for,
    }
    metadata = {"fedward": json.dumps({"format": FORMAT, **facts}, sort_keys=True)}
    return write_tensors(folder / checkpoint_name(state.attempt), tensors, metadata)


def open_checkpoint(folder: Path, attempt: int, digest: str, *, num_parameters: int) -> StateOf[Weights]:
    """Return the state after ``attempt`` with its vectors on disk; ``digest`` is the one in the journal.

    The file was read once, for its digest, and stays open while the state is held.
    Raises: StudyFolderInvalidError for a missing, changed or foreign file.
    """
    path = folder / checkpoint_name(attempt)
    changed = StudyFolderInvalidError(f"{path}: not the file that the journal names; restore it from a backup")
    try:
        stored = TensorFile.open(path, len(_TENSORS) * 4 * num_parameters + _OVERHEAD_BYTES)
    except ValueError:
        raise changed from None
    if stored.sha256() != digest:
        raise changed
    try:
        return _state(stored, parsed_json(stored.metadata["fedward"]))
    except (ValueError, KeyError):
        raise StudyFolderInvalidError(
            f"{path}: not a checkpoint that this version reads; finish the study with the version that began it"
        ) from None


def _vectors(state: StateOf[Weights]) -> dict[str, Weights]:
    vectors = state.parameters, state.average, state.best, state.optimiser.first, state.optimiser.second
    return dict(zip(_TENSORS, vectors, strict=True))


def _state(stored: TensorFile, facts: dict[str, Any]) -> StateOf[Weights]:
    """Put a state together. Raises: ValueError, KeyError for another form."""
    if facts["format"] not in READABLE:
        raise ValueError
    places = {name: facts.get("stands_for", {}).get(name, name) for name in _TENSORS}
    found: dict[str, Weights] = {name: stored.vectors[place] for name, place in places.items()}
    return StateOf(
        phase=facts["phase"],
        round_number=facts["round_number"],
        attempt=facts["attempt"],
        finished=facts["finished"],
        parameters=found["parameters"],
        average=found["average"],
        best=found["best"],
        best_score=float.fromhex(facts["best_score"]),
        scores_without_gain=facts["scores_without_gain"],
        optimiser=OptimiserState(facts["steps"], found["first"], found["second"]),
    )


def prune_checkpoints(folder: Path, applied: list[int]) -> None:
    """Delete all but the last ``KEPT`` states: each can be computed again from the sums.

    ``applied``: attempts in the journal, in order; only files that they name are deleted.
    """
    for attempt in applied[:-KEPT]:
        (folder / checkpoint_name(attempt)).unlink(missing_ok=True)


def same_state(one: StateOf[Weights], other: StateOf[Weights]) -> bool:
    """Tell whether two states are equal to the last bit."""
    pairs = zip(_vectors(one).values(), _vectors(other).values(), strict=True)
    return _numbers(one) == _numbers(other) and all(same_bits(a, b) for a, b in pairs)


def _numbers(state: StateOf[Weights]) -> tuple[object, ...]:
    scores = state.best_score, state.scores_without_gain
    return state.phase, state.round_number, state.attempt, state.finished, state.optimiser.steps, scores
