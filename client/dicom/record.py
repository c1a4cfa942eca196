"""One training record as the index knows it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

from client.dicom.facts import Facts

Label = int | tuple[int, ...]


class Split(StrEnum):
    """What a patient's scans are used for."""

    TRAINING = "training"
    VALIDATION = "validation"


class Stratum(StrEnum):
    """Whether a patient has any label at this site; all scans of a patient lie in one stratum (privacy.md)."""

    LABELLED = "labelled"
    UNLABELLED = "unlabelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordInfo(Facts):
    """A record: its facts, where it lies, and what it is used for.

    ``shape``: (height, width), in colour (3, height, width), or (depth, height, width). ``label``: class number
    (classification), one 0 or 1 for each class (multi-label), None when there is none; for segmentation see
    ``has_label_map``. ``content_digest`` tells two contents apart. ``identity_key``: the ``patient_key`` as the file
    has it, once persons are known and ``patient_key`` is that of the person (``persons``). ``segment``, ``offset``,
    ``length``: place of the sealed levels; ``label_length``: of the sealed label map that follows them (0 = none).
    """

    record_id: str
    shape: tuple[int, ...]
    content_digest: bytes
    segment: int
    offset: int
    length: int
    label_length: int = 0
    identity_key: str = field(default="", metadata={"derived": True})
    label: Label | None = field(default=None, metadata={"derived": True})
    split: Split = field(default=Split.TRAINING, metadata={"derived": True})
    stratum: Stratum = field(default=Stratum.UNLABELLED, metadata={"derived": True})

    @property
    def has_label_map(self) -> bool:
        """Whether an expert's segmentation lies beside the levels."""
        return self.label_length > 0

    @property
    def is_labelled(self) -> bool:
        """Whether this very record carries a label or a label map."""
        return self.label is not None or self.has_label_map

    def to_row(self) -> list[Any]:
        """Return the stored fields in a fixed order; label, split and stratum are derived when the cache is opened."""
        return [getattr(self, name) for name in STORED]

    def to_whole_row(self) -> list[Any]:
        """Return all fields, derived ones too (``catalogue``)."""
        return [getattr(self, name) for name in WHOLE]

    @classmethod
    def from_whole_row(cls, row: Sequence[Any]) -> Self:
        """Undo ``to_whole_row``."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in zip(WHOLE, row, strict=True)
        }
        return cls(**values | {"split": Split(values["split"]), "stratum": Stratum(values["stratum"])})

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Undo ``to_row``; equal keys share one string. What rows of older caches lack (``LATER``) stays unknown."""
        values: dict[str, Any] = {
            name: sys.intern(value) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
            for name, value in zip(STORED, row, strict=False)
        }
        return cls(**values)


# Added after the first caches were written; whatever is added stands at the end of a row.
LATER = ("issuer_key", "other_id_keys", "likeness_key", "birth_year_key", "sex_key", "doubts")
_FIRST = tuple(f.name for f in fields(RecordInfo) if not f.metadata.get("derived") and f.name not in LATER)
STORED = _FIRST + LATER
WHOLE = STORED + tuple(f.name for f in fields(RecordInfo) if f.metadata.get("derived"))
