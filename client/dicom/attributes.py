"""Single attributes of a data set, as checked numbers or words; a value that fails gives a code, never its text."""

import math
import re
from functools import lru_cache
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from client.dicom.reject import RejectCode, Rejected

UID_FORM = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")


def value_of(dataset: Dataset, keyword: str) -> Any:
    """Return the value of an attribute, or None when it is missing.

    As ``dataset.get(keyword)``, whose price for a missing attribute (an exception inside) is half of a header's cost.
    """
    tag = _tag(keyword)
    return dataset[tag].value if tag in dataset else None


@lru_cache
def _tag(keyword: str) -> BaseTag:
    return Tag(tag_for_keyword(keyword) or 0)


def word(dataset: Dataset, keyword: str) -> str:
    """Return a code string in capitals, or "" when it is missing or no text. Compare it with a closed set only."""
    value = value_of(dataset, keyword)
    return value.strip().upper() if isinstance(value, str) else ""


def words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return all values of a code string."""
    value = value_of(dataset, keyword)
    if isinstance(value, str):
        return (value.strip().upper(),)
    return tuple(str(item).strip().upper() for item in value) if isinstance(value, MultiValue) else ()


def text(dataset: Dataset, keyword: str) -> str:
    """Return an identifier as text ("" when missing); only ``pseudonyms`` may see it."""
    value = value_of(dataset, keyword)
    return "" if value is None else str(value).strip(" \0")


def instance_uid(dataset: Dataset, keyword: str) -> str:
    """Return a UID (PS3.5 section 9.1).

    A component with a leading zero, as older scanners write, is let pass: the UID is only hashed.

    Raises: Rejected(bad_uid).
    """
    value = value_of(dataset, keyword)
    if not isinstance(value, str) or not UID_FORM.fullmatch(value):
        raise Rejected(RejectCode.BAD_UID)
    return str(value)


def numbers(dataset: Dataset, keyword: str, count: int, *, limit: float = 1e9) -> tuple[float, ...] | None:
    """Return ``count`` finite numbers of at most ``limit`` in size, or None when the attribute is missing or empty.

    Raises: Rejected(bad_attribute).
    """
    value = value_of(dataset, keyword)
    if value is None or value == "":
        return None
    items = list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]
    try:
        found = tuple(float(item) for item in items)
    except (TypeError, ValueError):
        raise Rejected(RejectCode.BAD_ATTRIBUTE) from None
    if len(found) != count or not all(math.isfinite(x) and abs(x) <= limit for x in found):
        raise Rejected(RejectCode.BAD_ATTRIBUTE)
    return found


def number(dataset: Dataset, keyword: str, default: float) -> float:
    """Return one finite number, or ``default`` when the attribute is missing.

    Raises: Rejected(bad_attribute).
    """
    found = numbers(dataset, keyword, 1)
    return default if found is None else found[0]


def integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Return one integer.

    Raises: Rejected(missing_attribute) without ``default``, Rejected(bad_attribute).
    """
    found = numbers(dataset, keyword, 1)
    if found is None:
        if default is None:
            raise Rejected(RejectCode.MISSING_ATTRIBUTE)
        return default
    if found[0] != int(found[0]):
        raise Rejected(RejectCode.BAD_ATTRIBUTE)
    return int(found[0])
