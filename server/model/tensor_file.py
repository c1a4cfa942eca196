"""Vectors in one safetensors file, written and read block by block: a state never needs its size twice.

Source: the safetensors format (github.com/huggingface/safetensors, README): eight bytes of length, a JSON header with
name, type, shape and place of each tensor, then their bytes without gaps. The library reads what is written here, and
the other way round; its own ``save`` and ``load`` hold a whole file in memory.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from common.errors import FileUnreadableError
from common.files import open_bounded, parsed_json, write_atomically
from server.errors import StudyFolderInvalidError
from server.model.blocks import Weights, blocks

_TYPES: Final[dict[str, np.dtype[Any]]] = {"F32": np.dtype("<f4"), "I32": np.dtype("<i4"), "U64": np.dtype("<u8")}
_NAMES: Final = {dtype: name for name, dtype in _TYPES.items()}
_LENGTH_BYTES: Final = 8
_MAX_HEADER_BYTES: Final = 1 << 16
_READ_BYTES: Final = 1 << 20


def write_tensors(path: Path, tensors: Mapping[str, Weights | NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """Write vectors, durable and complete or not at all; return the SHA-256 (hexadecimal) of the file.

    Shapes: each (size,): arrays of float32, int32 or uint64, or other weights, which are float32. The same vectors and
    metadata give the same bytes.
    Raises: FileUnreadableError; what giving a block raises, and then the file is as it was before.
    """
    digest = hashlib.sha256()

    def pieces() -> Iterator[memoryview]:
        for piece in _pieces(tensors, metadata):
            digest.update(piece)
            yield piece

    write_atomically(path, pieces())
    return digest.hexdigest()


def _pieces(tensors: Mapping[str, Weights | NDArray[Any]], metadata: Mapping[str, str]) -> Iterator[memoryview]:
    ordered = dict(sorted(tensors.items(), key=lambda item: -_type_of(item[1]).itemsize))  # so each lies aligned
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, tensor in ordered.items():
        start, end = end, end + _type_of(tensor).itemsize * tensor.size
        header[name] = {"dtype": _NAMES[_type_of(tensor)], "shape": [tensor.size], "data_offsets": [start, end]}
    octets = json.dumps(header, separators=(",", ":")).encode()
    octets = octets.ljust(-(-len(octets) // _LENGTH_BYTES) * _LENGTH_BYTES)
    yield memoryview(len(octets).to_bytes(_LENGTH_BYTES, "little") + octets)
    for tensor in ordered.values():
        for block in blocks(tensor.size):
            yield np.ascontiguousarray(tensor[block], _type_of(tensor)).data.cast("B")


def _type_of(tensor: Weights | NDArray[Any]) -> np.dtype[Any]:
    if isinstance(tensor, np.ndarray):
        little: np.dtype[Any] = tensor.dtype.newbyteorder("<")
        return little
    return _TYPES["F32"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in a file: type, number of values, and its first byte."""

    dtype: np.dtype[Any]
    size: int
    start: int


@dataclass(frozen=True, eq=False)
class StoredVector:
    """One tensor of an open file, read block by block (``server.model.blocks.Weights`` where it is float32)."""

    file: IO[bytes]
    place: Place

    @property
    def size(self) -> int:
        """Number of values."""
        return self.place.size

    def __getitem__(self, block: slice, /) -> NDArray[Any]:
        """Return values ``block.start`` to ``block.stop``, read-only.

        Raises: StudyFolderInvalidError if the file was cut short meanwhile.
        """
        start, stop, _ = block.indices(self.size)
        width = self.place.dtype.itemsize
        content = os.pread(self.file.fileno(), (stop - start) * width, self.place.start + start * width)
        if len(content) != (stop - start) * width:
            raise StudyFolderInvalidError("a checkpoint or sum was cut short while it was read; start the study again")
        return np.frombuffer(content, self.place.dtype)


def remove_unfinished(folder: Path) -> None:
    """Delete what writers that were killed left in ``folder``: nothing names it, and each may be a whole state.

    Nobody may be writing there meanwhile.
    """
    for path in folder.glob(".*.safetensors.*"):
        path.unlink(missing_ok=True)


def set_aside(vector: NDArray[Any], folder: Path) -> StoredVector:
    """Move a vector (size,) out of memory, into a file without a name in ``folder`` that is gone with the result.

    Raises: FileUnreadableError when the folder cannot be written.
    """
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it lives as long as the vector)
        file.write(vector.data)
        file.flush()
    except OSError as error:
        raise FileUnreadableError(f"{folder}: cannot be written ({error.strerror}); check folder and space") from None
    return StoredVector(file, Place(vector.dtype, vector.size, 0))


@dataclass(frozen=True, eq=False)
class TensorFile:
    """An open file of tensors; it stays open as long as one of its vectors is held.

    Attributes: metadata; vectors, by name. Nothing is checked against a digest yet: ``sha256`` gives it.
    """

    file: BufferedReader
    metadata: Mapping[str, str]
    vectors: Mapping[str, StoredVector]

    @classmethod
    def open(cls, path: Path, max_bytes: int) -> Self:
        """Open a file of at most ``max_bytes`` and read its header.

        Raises: FileUnreadableError, FileTooLargeError; ValueError for another form.
        """
        file = open_bounded(path, max_bytes)
        try:
            metadata, places = _header(file)
        except (ValueError, KeyError, TypeError, AttributeError):
            file.close()
            raise ValueError("not a file of tensors") from None
        return cls(file, metadata, {name: StoredVector(file, place) for name, place in places.items()})

    def sha256(self) -> str:
        """Return the SHA-256 (hexadecimal) of the whole file as it is now."""
        self.file.seek(0)
        digest, buffer = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
        while count := self.file.readinto(buffer):
            digest.update(buffer[:count])
        return digest.hexdigest()

    def read(self, name: str) -> NDArray[Any]:
        """Return one vector in memory. Raises: ValueError if it is not there; StudyFolderInvalidError."""
        if name not in self.vectors:
            raise ValueError(f"no tensor {name}")
        stored = self.vectors[name]
        vector = np.empty(stored.size, stored.place.dtype)
        for block in blocks(stored.size):
            vector[block] = stored[block]
        return vector


def _header(file: BufferedReader) -> tuple[dict[str, str], dict[str, Place]]:
    """Read and check the header: known types, one axis, and every tensor inside the file."""
    end = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > min(_MAX_HEADER_BYTES, end - _LENGTH_BYTES):
        raise ValueError
    header = parsed_json(file.read(length))
    metadata = {str(name): str(value) for name, value in header.pop("__metadata__", {}).items()}
    places = {}
    for name, entry in header.items():
        dtype, (size,), (start, stop) = _TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if any(type(number) is not int for number in (size, start, stop)):
            raise ValueError
        if not 0 <= start <= stop <= end - _LENGTH_BYTES - length or stop - start != size * dtype.itemsize:
            raise ValueError
        places[name] = Place(dtype, size, _LENGTH_BYTES + length + start)
    return metadata, places
