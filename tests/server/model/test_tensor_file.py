"""Vectors in files: the library reads what we write and the other way round, and nothing is ever whole in memory."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from common.errors import FileUnreadableError
from server.errors import StudyFolderInvalidError
from server.model.blocks import BLOCK, Computed, blocks, part_of, same_bits, whole
from server.model.tensor_file import TensorFile, set_aside, write_tensors

LENGTH = 2 * BLOCK + 5
FLOATS = np.random.default_rng(1).normal(size=LENGTH).astype(np.float32)
VECTORS = {
    "floats": FLOATS,
    "integers": np.arange(-3, 70_000, dtype=np.int32),
    "words": np.array([0, 2**64 - 1], np.uint64),
    "nothing": np.zeros(0, np.float32),
}


def test_the_library_reads_what_is_written_here(tmp_path):
    path = tmp_path / "a.safetensors"
    digest = write_tensors(path, VECTORS, {"one": "1", "two": "2"})
    found = load_file(path)
    assert {name: vector.dtype for name, vector in found.items()} == {n: v.dtype for n, v in VECTORS.items()}
    assert all(np.array_equal(found[name], vector) for name, vector in VECTORS.items())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert write_tensors(tmp_path / "b", VECTORS, {"two": "2", "one": "1"}) == digest


def test_what_the_library_writes_is_read_here(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(VECTORS, path, {"one": "1"})
    opened = TensorFile.open(path, 1 << 20)
    assert opened.metadata == {"one": "1"}
    assert all(np.array_equal(opened.read(name), vector) for name, vector in VECTORS.items())
    assert opened.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_formula_is_written_as_its_values_and_a_file_gives_any_part_back(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"doubled": Computed(LENGTH, lambda block: FLOATS[block] * 2)}, {})
    stored = TensorFile.open(path, 1 << 20).vectors["doubled"]
    assert np.array_equal(whole(stored), FLOATS * 2)
    assert np.array_equal(whole(part_of(stored, slice(7, 90_000))), FLOATS[7:90_000] * 2)
    assert np.array_equal(whole(part_of(FLOATS, slice(7, 9))), FLOATS[7:9])


def test_equal_is_equal_to_the_last_bit_and_an_empty_vector_stands_for_zeros(tmp_path):
    negative = np.array([0.0, -0.0], np.float32)
    assert same_bits(FLOATS, set_aside(FLOATS, tmp_path))
    assert not same_bits(FLOATS, FLOATS + np.float32(1e-3))
    assert not same_bits(FLOATS, FLOATS[:-1])
    assert same_bits(np.zeros(2, np.float32), np.zeros(0, np.float32))
    assert not same_bits(negative, np.zeros(0, np.float32))
    assert list(tmp_path.iterdir()) == []  # what was set aside has no name


def test_blocks_cover_a_vector_once():
    covered = np.concatenate([np.arange(LENGTH)[block] for block in blocks(LENGTH)])
    assert np.array_equal(covered, np.arange(LENGTH))
    assert list(blocks(0)) == []


@pytest.mark.parametrize("fault", [RuntimeError("power"), KeyboardInterrupt()], ids=["fault", "interrupt"])
def test_a_fault_between_blocks_leaves_the_old_file_and_nothing_else(tmp_path, fault):
    path = tmp_path / "a.safetensors"
    write_tensors(path, VECTORS, {})
    before = path.read_bytes()

    def failing(block):
        if block.start:
            raise fault
        return FLOATS[block]

    with pytest.raises(type(fault)):
        write_tensors(path, {"floats": Computed(LENGTH, failing)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileUnreadableError):
        write_tensors(tmp_path / "missing" / "a", VECTORS, {})


def damaged(header, *, body=8, length=None):
    octets = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(octets) if length is None else length).to_bytes(8, "little") + octets + bytes(body)


def entry(**changes):
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


DAMAGED = {
    "empty": b"",
    "a header longer than the file": damaged(entry(), length=10_000),
    "a huge header": damaged(entry(), length=1 << 62),
    "not JSON": damaged(b"{nonsense"),
    "not an object": damaged([1]),
    "an entry that is a number": damaged({"a": 1}),
    "another type": damaged(entry(dtype="F16")),
    "two axes": damaged(entry(shape=[1, 2])),
    "another size": damaged(entry(shape=[3])),
    "a size that is no whole number": damaged(entry(shape=[2.0])),
    "an end outside": damaged(entry(shape=[4], data_offsets=[0, 16])),
    "a negative start": damaged(entry(data_offsets=[-8, 0])),
    "deeply nested": damaged(b"[" * 60_000),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_another_form_is_refused(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a file of tensors"):
        TensorFile.open(path, 1 << 20)


def test_a_file_that_is_cut_short_while_it_is_read_is_noticed(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, VECTORS, {})
    opened = TensorFile.open(path, 1 << 20)
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(StudyFolderInvalidError, match="cut short"):
        opened.read("floats")
    with pytest.raises(ValueError, match="no tensor"):
        opened.read("others")


# A process of its own: the peak of this one was reached long ago. 20 million weights, 80 MB, in vectors of their own.
PEAK_OF_A_ROUND = """
import sys
from pathlib import Path
import numpy as np
from server.model.blocks import Computed
from server.model.checkpoint import open_checkpoint, write_checkpoint
from server.model.state import StateOf
from server.model.optimiser import OptimiserState

SIZE = 20_000_000

def peak_mb():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

def made_up(factor):
    return Computed(SIZE, lambda block: np.arange(block.start, block.stop, dtype=np.float32) * np.float32(factor))

def written(attempt, parameters, average, memory, best):
    state = StateOf(0, attempt + 1, attempt, finished=False, parameters=parameters, average=average, best=best,
                    optimiser=OptimiserState(attempt, memory, memory))
    digest = write_checkpoint(folder, state)
    return open_checkpoint(folder, attempt, digest, num_parameters=SIZE)

folder = Path(sys.argv[1])
before = peak_mb()
state = written(1, made_up(1), made_up(2), made_up(3), made_up(4))
written(2, state.average, state.best, state.optimiser.first, state.parameters)
print(peak_mb() - before)
"""


def test_a_checkpoint_is_written_and_read_without_ever_being_in_memory(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_A_ROUND, tmp_path], capture_output=True, check=True, env={"OMP_NUM_THREADS": "1"}
    )
    assert float(done.stdout) < 20  # MiB; the file has 320 MB
