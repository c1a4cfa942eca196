"""States on disk: the same bits come back, and a changed or foreign file is never taken for the state."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from common.errors import FedwardError
from common.secagg.accumulator import SummedVector
from common.secagg.fixed_point import Lattice
from common.secagg.vector import VectorSpec
from server.errors import StudyFolderInvalidError
from server.model.checkpoint import (
    KEPT,
    checkpoint_name,
    open_checkpoint,
    prune_checkpoints,
    same_state,
    write_checkpoint,
)
from server.model.optimiser import OptimiserState, new_optimiser_state
from server.model.state import ModelState, in_memory
from server.model.sums import read_sum, sum_name, write_sum

SIZE = 9


def state(attempt=3, **changes):
    vectors = np.random.default_rng(attempt).normal(size=(5, SIZE)).astype(np.float32)
    parameters, average, best, first, second = vectors
    made = ModelState(
        phase=1,
        round_number=7,
        attempt=attempt,
        finished=False,
        parameters=parameters,
        average=average,
        optimiser=OptimiserState(6, first[:4], second[:4]),
        best=best,
        best_score=0.1 + 0.2,
    )
    return replace(made, **changes)


@pytest.mark.parametrize("score", [-np.inf, 0.1 + 0.2, 1.0])
def test_a_state_comes_back_to_the_last_bit(tmp_path, score):
    written = state(best_score=score)
    digest = write_checkpoint(tmp_path, written)
    assert same_state(open_checkpoint(tmp_path, 3, digest, num_parameters=SIZE), written)


def test_the_same_state_makes_the_same_file(tmp_path):
    assert write_checkpoint(tmp_path, state()) == write_checkpoint(tmp_path, state())


CHANGES = {
    "another weight": {"parameters": np.zeros(SIZE, np.float32)},
    "another average": {"average": np.zeros(SIZE, np.float32)},
    "another round": {"round_number": 8},
    "another step count": {"optimiser": replace(state().optimiser, steps=5)},
    "another score": {"best_score": 0.3},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_states_that_differ_are_not_the_same(tmp_path, changes):
    assert not same_state(state(), state(**changes))
    assert write_checkpoint(tmp_path, state()) != write_checkpoint(tmp_path, state(**changes))


def test_a_changed_truncated_or_missing_file_is_refused(tmp_path):
    digest = write_checkpoint(tmp_path, state())
    path = tmp_path / checkpoint_name(3)
    content = path.read_bytes()
    for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1]), content + bytes(1 << 20)):
        path.write_bytes(damaged)
        with pytest.raises(FedwardError):
            open_checkpoint(tmp_path, 3, digest, num_parameters=SIZE)
    path.unlink()
    with pytest.raises(FedwardError):
        open_checkpoint(tmp_path, 3, digest, num_parameters=SIZE)


def test_only_the_last_states_are_kept_and_strange_files_stay(tmp_path):
    for attempt in (1, 2, 4, 5, 6):
        write_checkpoint(tmp_path, state(attempt))
    (tmp_path / "notes.txt").write_text("mine")
    prune_checkpoints(tmp_path, [1, 2, 4, 5, 6])
    kept = {checkpoint_name(attempt) for attempt in (4, 5, 6)}
    assert {path.name for path in tmp_path.iterdir()} == kept | {"notes.txt"}
    assert len(kept) == KEPT


def test_equal_vectors_are_stored_once_and_come_back_as_one(tmp_path):
    made = state()
    same = replace(made, average=made.parameters, best=made.parameters, optimiser=new_optimiser_state())
    digest = write_checkpoint(tmp_path, same)
    read = in_memory(open_checkpoint(tmp_path, 3, digest, num_parameters=SIZE))
    assert read.average is read.best is read.parameters
    assert same_state(read, same)
    assert set(load_file(tmp_path / checkpoint_name(3))) == {"parameters", "first", "second"}
    zeros = replace(same, optimiser=OptimiserState(0, np.zeros(4, np.float32), np.zeros(4, np.float32)))
    assert same_state(zeros, same)


def first_format(made, *, name="fedward-checkpoint/1"):
    """The file that earlier versions wrote, and its digest."""
    tensors = {
        "parameters": made.parameters, "average": made.average, "best": made.best,
        "first": made.optimiser.first, "second": made.optimiser.second,
    }  # fmt: skip
    facts = {
        "phase": made.phase, "round_number": made.round_number, "attempt": made.attempt, "finished": made.finished,
        "steps": made.optimiser.steps, "best_score": made.best_score.hex(),
        "scores_without_gain": made.scores_without_gain, "format": name,
    }  # fmt: skip
    content = save(tensors, {"fedward": json.dumps(facts)})
    return content, hashlib.sha256(content).hexdigest()


def test_a_state_that_an_earlier_version_wrote_is_read(tmp_path):
    content, digest = first_format(state())
    (tmp_path / checkpoint_name(3)).write_bytes(content)
    assert same_state(open_checkpoint(tmp_path, 3, digest, num_parameters=SIZE), state())


def test_a_state_that_a_later_version_wrote_is_refused_with_a_remedy(tmp_path):
    content, digest = first_format(state(), name="fedward-checkpoint/3")
    (tmp_path / checkpoint_name(3)).write_bytes(content)
    with pytest.raises(StudyFolderInvalidError, match="finish the study with the version that began it"):
        open_checkpoint(tmp_path, 3, digest, num_parameters=SIZE)


@pytest.fixture
def spec():
    return VectorSpec(2, SIZE, 32, 4, 4.0, 4)


@pytest.fixture
def total(spec):
    body = np.arange(SIZE, dtype=np.int32) - 4
    return SummedVector(np.array([5, 2**64 - 1], np.uint64), body, 3, spec.lattice)


def digest_of(total):
    return hashlib.sha256(total.meta.tobytes() + total.body_sum.tobytes()).digest()


def test_a_sum_comes_back_exactly(tmp_path, spec, total):
    write_sum(tmp_path, 8, total)
    found = read_sum(tmp_path, 8, spec=spec, participants=3, digest=digest_of(total))
    assert found.body_sum.tolist() == total.body_sum.tolist()
    assert found.meta.tolist() == total.meta.tolist()
    assert isinstance(found.lattice, Lattice)
    assert found.lattice == spec.lattice


def test_another_sum_than_the_one_opened_is_refused(tmp_path, spec, total):
    write_sum(tmp_path, 8, replace(total, body_sum=total.body_sum + 1))
    with pytest.raises(StudyFolderInvalidError, match="was opened"):
        read_sum(tmp_path, 8, spec=spec, participants=3, digest=digest_of(total))
    (tmp_path / sum_name(8)).write_bytes(b"not a safetensors file")
    with pytest.raises(StudyFolderInvalidError, match="damaged"):
        read_sum(tmp_path, 8, spec=spec, participants=3, digest=digest_of(total))
