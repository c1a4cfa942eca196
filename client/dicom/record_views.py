"""Records of a cache as a sequence and as a mapping, read from its catalogue when they are asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import overload

from client.dicom.catalogue import Catalogue
from client.dicom.record import RecordInfo

Found = list[RecordInfo]
Ask = Callable[[Callable[[Catalogue], Found]], Found]


class Records(Sequence[RecordInfo]):
    """Records in the order of their identifiers; whoever goes through all of them opens each block once."""

    def __init__(self, ask: Ask, count: int) -> None:
        self._ask, self._count = ask, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> RecordInfo: ...

    @overload
    def __getitem__(self, index: slice) -> Found: ...

    def __getitem__(self, index: int | slice) -> RecordInfo | Found:
        if isinstance(index, slice):
            return self._numbered(range(self._count)[index])
        return self._numbered([range(self._count)[index]])[0]

    def __iter__(self) -> Iterator[RecordInfo]:
        return iter(self[:])

    def _numbered(self, numbers: Sequence[int]) -> Found:
        return self._ask(lambda catalogue: catalogue.in_order(numbers))


class PatientRecords(Mapping[str, Found]):
    """Records of each patient; of one who opted out of a frozen study there are none."""

    def __init__(self, ask: Ask, keys: Sequence[str]) -> None:
        self._ask, self._keys = ask, keys

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __getitem__(self, patient_key: str) -> Found:
        return self._ask(lambda catalogue: catalogue.of_patient(patient_key))
