"""The strict wire format: canonical msgpack, checked field by field, bounded before anything is allocated.

A message is the msgpack array ``[version, kind, {field: value, ...}]`` with the fields in their declared order. What is
read must encode to the very same bytes again, so every content has one encoding, which signatures can rely on. A field
is declared once, in its dataclass, with a codec that fixes type and length:

    @dataclass(frozen=True, kw_only=True)
    class Certificate:
        session_id: bytes = wire(DIGEST)

Memory: the text is at most MAX_MESSAGE_BYTES; a list can announce at most MAX_SITES members and nothing nests deeper
than the declared types once read, so decoding holds a small multiple of the text.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar

import msgpack  # type: ignore[import-untyped]

from common.secagg.keys import KEY_BYTES, SIGNATURE_BYTES
from common.secagg.sealed_shares import SEALED_BYTES
from common.secagg.shamir import SHARE_BYTES

MAX_SITES = 1000
MAX_MESSAGE_BYTES = 1 << 20
MAX_TEXT_BYTES = 64
_NAME = re.compile(r"[a-z][a-z0-9-]{1,62}")


class WireError(Exception):
    """A value is not of its declared form."""


class Record(Protocol):
    """Any dataclass whose fields are declared with ``wire``."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Codec:
    """How one field is read from plain msgpack values and written to them."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = lambda value: value


def wire(codec: Codec) -> Any:
    """Declare a field of a message with its codec."""
    return field(metadata={"codec": codec})


def _expect(*, holds: bool) -> None:
    if not holds:
        raise WireError


def octets(length: int) -> Codec:
    """Byte strings of exactly ``length`` bytes."""

    def read(value: Any) -> bytes:
        _expect(holds=type(value) is bytes and len(value) == length)
        return bytes(value)

    return Codec(read)


def octets_up_to(limit: int) -> Codec:
    """Byte strings of at most ``limit`` bytes."""

    def read(value: Any) -> bytes:
        _expect(holds=type(value) is bytes and len(value) <= limit)
        return bytes(value)

    return Codec(read)


def whole(lowest: int, highest: int) -> Codec:
    """Whole numbers in [lowest, highest]; True and False are none."""

    def read(value: Any) -> int:
        _expect(holds=type(value) is int and lowest <= value <= highest)
        return int(value)

    return Codec(read)


def real(lowest: float, highest: float) -> Codec:
    """Finite 64-bit floats in [lowest, highest]; a whole number is none."""

    def read(value: Any) -> float:
        _expect(holds=type(value) is float and math.isfinite(value) and lowest <= value <= highest)
        return float(value)

    return Codec(read)


def _read_name(value: Any) -> str:
    _expect(holds=type(value) is str and _NAME.fullmatch(value) is not None)
    return str(value)


def _read_name_or_nothing(value: Any) -> str:
    return "" if value == "" and type(value) is str else _read_name(value)


def listing(item: Codec, limit: int = MAX_SITES) -> Codec:
    """Lists of at most ``limit`` items, read as a tuple."""

    def read(value: Any) -> tuple[Any, ...]:
        _expect(holds=type(value) is list and len(value) <= limit)
        return tuple(map(item.read, value))

    return Codec(read, lambda values: [item.write(value) for value in values])


def nested(record: type[R]) -> Codec:
    """Another dataclass inside this one."""
    return Codec(lambda value: read_fields(record, value), write_fields)


NAME = Codec(_read_name)
NAME_OR_NOTHING = Codec(_read_name_or_nothing)
NAMES = listing(NAME)
DIGEST = octets(32)
KEY = octets(KEY_BYTES)
SIGNATURE = octets(SIGNATURE_BYTES)
SHARE = octets(SHARE_BYTES)
SEALED = octets(SEALED_BYTES)


@cache
def _codecs(record: type[Any]) -> tuple[tuple[str, Codec], ...]:
    return tuple((each.name, each.metadata["codec"]) for each in fields(record))


def read_fields(record: type[R], plain: Any) -> R:
    """Return the record of a plain msgpack map.

    Raises: WireError unless it has exactly the declared fields, in order, each of its form.
    """
    codecs = _codecs(record)
    _expect(holds=type(plain) is dict and tuple(plain) == tuple(name for name, _ in codecs))
    return record(**{name: codec.read(plain[name]) for name, codec in codecs})


def write_fields(record: Record) -> dict[str, Any]:
    """Return the plain msgpack map of a record, fields in declared order."""
    return {name: codec.write(getattr(record, name)) for name, codec in _codecs(type(record))}


def pack(plain: Any) -> bytes:
    """Return the one encoding of plain values."""
    packed: bytes = msgpack.packb(plain, use_bin_type=True)
    return packed


def unpack(octets_read: bytes) -> Any:
    """Return the plain values of one msgpack text.

    Raises: WireError for anything that is not one complete text of null, booleans, numbers, UTF-8 text, bytes, lists
    within the limits, and maps with text keys. (Whether it is canonical is for ``pack`` to tell.)
    """
    try:
        return msgpack.unpackb(
            octets_read,
            raw=False,
            strict_map_key=True,
            max_array_len=MAX_SITES,
            max_map_len=MAX_TEXT_BYTES,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise WireError from error
