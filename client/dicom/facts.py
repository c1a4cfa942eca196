"""The allow-list: everything that may be known about a scan outside the worker that read it.

Keyed names (hexadecimal), numbers that are finite and bounded, and words from closed sets. No date, no free text, no
UID. The parent process checks each fact again (``checked``), so that even a worker taken over by a hostile file can
deliver nothing else. A test holds the field names against a constant list.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from client.dicom.identity_keys import DOUBTS, Identity
from client.dicom.reject import RejectCode, Rejected
from common.plan.task import Modality

KEY = re.compile(r"[0-9a-f]{32}")
OTHER_ID = re.compile(r"[0-9a-f]{32}([0-9a-f]{32})?")
OTHER = "OTHER"
MAKERS = ("GE", "SIEMENS", "PHILIPS", "CANON", "TOSHIBA", "FUJI", "HOLOGIC", "AGFA", "CARESTREAM", "KONICA", "HITACHI",
          "SHIMADZU", "SAMSUNG", "UNITED IMAGING", "NEUSOFT", "MINDRAY", "ESAOTE", "VAREX", "ACME", OTHER)  # fmt: skip
LATERALITIES = ("L", "R", "B", "U", "")
VIEWS = ("CC", "MLO", "ML", "LM", "XCCL", "AP", "PA", "LL", "RL", "LATERAL", OTHER, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts(Identity):
    """What is known about one image or volume, and whom it is about.

    ``accession_key`` may be empty. ``frame_index``: from 0, of a multi-frame instance. ``slices``: how many frames of
    the source the record was made from. ``intensity_low``, ``intensity_high``: the values (HU, or units of the
    image) stored as level 0 and level 65535. ``spacing_mm``: of the record's pixels, in the order of its shape; 0 =
    unknown.
    """

    accession_key: str
    study_key: str
    series_key: str
    instance_key: str
    modality: str
    maker: str
    laterality: str
    view: str
    frame_index: int = 0
    slices: int = 1
    intensity_low: float = 0.0
    intensity_high: float = 0.0
    spacing_mm: tuple[float, ...] = ()


FACT_NAMES = tuple(field.name for field in fields(Facts))
_KEYS = ("patient_key", "patient_id_key", "study_key", "series_key", "instance_key")
_KEYS_IF_ANY = ("accession_key", "issuer_key", "likeness_key", "birth_year_key", "sex_key")
_WORDS = {
    "modality": tuple(m.value for m in Modality),
    "maker": MAKERS,
    "laterality": LATERALITIES,
    "view": VIEWS,
}


def checked(raw: Mapping[str, object]) -> Facts:
    """Build facts from what a worker sent, refusing anything outside the allow-list.

    Raises: Rejected(worker_died): a worker that sends other things is treated as dead.
    """
    ok = set(raw) == set(FACT_NAMES)
    ok = ok and all(_is_key(raw[name]) for name in _KEYS)
    ok = ok and all(raw[name] == "" or _is_key(raw[name]) for name in _KEYS_IF_ANY)
    ok = ok and _is_list(raw["other_id_keys"], 16, lambda key: isinstance(key, str) and OTHER_ID.fullmatch(key))
    ok = ok and _is_list(raw["doubts"], len(DOUBTS), DOUBTS.__contains__)
    ok = ok and all(raw[name] in words for name, words in _WORDS.items())
    ok = ok and all(_is_count(raw[name]) for name in ("frame_index", "slices"))
    ok = ok and all(_is_finite(raw[name]) for name in ("intensity_low", "intensity_high"))
    spacing = raw.get("spacing_mm")
    if not ok or not _is_list(spacing, 3, _is_finite):
        raise Rejected(RejectCode.WORKER_DIED)
    return Facts(**{name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()})  # type: ignore[arg-type]


def _is_list(value: object, at_most: int, fits: Callable[[Any], object]) -> bool:
    return isinstance(value, (list, tuple)) and len(value) <= at_most and all(map(fits, value))


def _is_key(value: object) -> bool:
    return isinstance(value, str) and KEY.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 20


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
