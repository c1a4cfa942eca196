"""All records of one view of a cache in a sealed table, of which only what is asked for is opened.

    magic (20) || length of the sealed head (8, big-endian) || sealed head || sealed blocks of ``ROWS`` records

The head has the marks of what the table was made from (``catalogue_file``), the patients with their strata, and where
each record stands; it takes about 70 bytes a record and is read in one piece. A block is opened when one of its records
is asked for. Both are sealed by the cache's vault: the head under the view's name, a block under the head's own random
name and its number, so that nothing can be cut, exchanged or put together from two tables unnoticed.
"""

import secrets
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from client.dicom.errors import CacheInvalidError
from client.dicom.record import WHOLE, RecordInfo, Split, Stratum
from client.dicom.vault import Vault
from client.processes.packing import packed, unpacked

MAGIC: Final = b"fedward-catalogue/1\n"
LENGTH_BYTES: Final = 8
ROWS: Final = 64
BLOCKS_KEPT: Final = 32
HEAD, BLOCK = "catalogue", "catalogue block"
_STRATA, _SPLITS = tuple(Stratum), tuple(Split)


@dataclass(frozen=True, slots=True)
class Patient:
    """What the head says of a patient; ``records``: how many there are, 0 for one who opted out of a frozen study."""

    key: str
    stratum: Stratum
    split: Split
    records: int


class Catalogue:
    """Reads a table; see the module's words.

    Raises, also later when a block is opened: CacheInvalidError for anything that was changed, cut or exchanged.
    """

    def __init__(self, vault: Vault, view: str, content: memoryview) -> None:
        self._vault, self._content = vault, content
        start = len(MAGIC) + LENGTH_BYTES
        end = start + int.from_bytes(content[len(MAGIC) : start], "big")
        if bytes(content[: len(MAGIC)]) != MAGIC or end > len(content):
            raise CacheInvalidError("a catalogue of the cache was cut, or is of another version")
        head = unpacked(vault.open(HEAD, view, content[start:end]))
        if head["columns"] != list(WHOLE):
            raise CacheInvalidError("a catalogue of the cache was written by another version")
        self.marks: bytes = head["marks"]
        self.doubts: dict[str, int] = head["doubts"]
        self._name: str = head["name"]
        self._ids, self._keys = _words(head["ids"]), _words(head["patients"])
        self._places = np.frombuffer(head["places"], "<u4")
        self._firsts = np.frombuffer(head["firsts"], "<u4")
        self._kinds: bytes = head["kinds"]
        self._blocks = end + np.frombuffer(head["blocks"], "<u8")
        if int(self._blocks[-1]) != len(content):
            raise CacheInvalidError("a catalogue of the cache was cut")
        self._rows = lru_cache(BLOCKS_KEPT)(self._opened)

    def __len__(self) -> int:
        return len(self._ids)

    def keys(self) -> list[str]:
        """Return the keys of all patients, sorted."""
        return [key.decode() for key in self._keys.tolist()]

    def patients(self) -> Iterator[Patient]:
        """Yield what is known of each patient, in the order of the keys."""
        counts = np.diff(self._firsts).tolist()
        for key, kind, count in zip(self.keys(), self._kinds, counts, strict=True):
            yield Patient(key, _STRATA[kind // len(_SPLITS)], _SPLITS[kind % len(_SPLITS)], count)

    def of_patient(self, key: str) -> list[RecordInfo]:
        """Return a patient's records, in the order of their identifiers. Raises: KeyError."""
        number = _place(self._keys, key)
        return [self._at(place) for place in range(int(self._firsts[number]), int(self._firsts[number + 1]))]

    def record(self, record_id: str) -> RecordInfo:
        """Return one record. Raises: KeyError."""
        return self._at(int(self._places[_place(self._ids, record_id)]))

    def in_order(self, numbers: Sequence[int]) -> list[RecordInfo]:
        """Return records by their numbers in the order of identifiers; each block is opened once if all are asked."""
        places = [int(self._places[number]) for number in numbers]
        found = {place: self._at(place) for place in sorted(places)}
        return [found[place] for place in places]

    def _at(self, place: int) -> RecordInfo:
        return RecordInfo.from_whole_row(self._rows(place // ROWS)[place % ROWS])

    def _opened(self, block: int) -> list[list[Any]]:
        sealed = self._content[int(self._blocks[block]) : int(self._blocks[block + 1])]
        rows: list[list[Any]] = unpacked(self._vault.open(BLOCK, f"{self._name}/{block}", sealed))["rows"]
        return rows


def make_catalogue(
    vault: Vault,
    view: str,
    records: Sequence[RecordInfo],
    *,
    marks: bytes,
    doubts: dict[str, int],
    absent: Sequence[Patient] = (),
) -> bytes:
    """Return the table of ``records``. ``absent``: patients of a frozen study who have no record here any more."""
    placed = sorted(records, key=lambda record: (record.patient_key, record.record_id))
    patients = sorted([*_patients(placed), *absent], key=lambda patient: patient.key)
    order = sorted(range(len(placed)), key=lambda place: placed[place].record_id)
    name, blocks = secrets.token_hex(16), []
    for number, start in enumerate(range(0, len(placed), ROWS)):
        rows = [record.to_whole_row() for record in placed[start : start + ROWS]]
        blocks.append(vault.seal(BLOCK, f"{name}/{number}", packed({"rows": rows})))
    head = {
        "columns": list(WHOLE),
        "marks": marks,
        "doubts": doubts,
        "name": name,
        "ids": _packed_words([placed[place].record_id for place in order]),
        "places": np.array(order, "<u4").tobytes(),
        "patients": _packed_words([patient.key for patient in patients]),
        "firsts": np.cumsum([0, *(patient.records for patient in patients)]).astype("<u4").tobytes(),
        "kinds": bytes(
            _STRATA.index(patient.stratum) * len(_SPLITS) + _SPLITS.index(patient.split) for patient in patients
        ),
        "blocks": np.cumsum([0, *map(len, blocks)]).astype("<u8").tobytes(),
    }
    sealed = vault.seal(HEAD, view, packed(head))
    return b"".join((MAGIC, len(sealed).to_bytes(LENGTH_BYTES, "big"), sealed, *blocks))


def _patients(placed: Sequence[RecordInfo]) -> Iterator[Patient]:
    for key, group in groupby(placed, key=lambda record: record.patient_key):
        first, *others = group
        yield Patient(key, first.stratum, first.split, 1 + len(others))


def _packed_words(words: Sequence[str]) -> dict[str, Any]:
    """Return words, in their order, as one string of bytes with equal widths."""
    table = np.array([word.encode() for word in words], dtype=np.bytes_)
    return {"width": table.dtype.itemsize, "words": table.tobytes() if words else b""}


def _words(content: dict[str, Any]) -> NDArray[np.bytes_]:
    """Undo ``_packed_words``."""
    return np.frombuffer(content["words"], f"S{content['width']}")


def _place(words: NDArray[np.bytes_], word: str) -> int:
    """Return where a word stands in sorted ``words``. Raises: KeyError."""
    wanted = word.encode()
    place = bisect_left(words, wanted)
    if place == len(words) or words[place] != wanted:
        raise KeyError(word)
    return place
