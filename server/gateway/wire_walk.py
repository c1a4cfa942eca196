"""A request of Flower's is walked before it is parsed: how many fields, how deep, and where it repeats itself.

A parser makes an object of each field it meets, so four bytes of a body can cost a hundred of memory. Walking costs no
memory, stops at the first excess, and only then may the parser see the body. Nothing is copied.
Source: Protocol Buffers, Encoding (protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor  # type: ignore[import-untyped]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT: Final = 10
FIXED_BYTES: Final = {FIXED64: 8, FIXED32: 4}


class WalkError(ValueError):
    """The body is no message of this kind, or larger than any honest one in number of fields or in depth."""


@dataclass(frozen=True)
class WalkLimits:
    """``fields`` of all levels together; ``depth`` of messages within messages.

    A reply of ours has 30 fields, and one object (3 fields) more for each 5 MB that it carries.
    """

    fields: int = 4096
    depth: int = 16


def walk(body: bytes, kind: Descriptor, limits: WalkLimits, *, once: frozenset[str] = frozenset()) -> None:
    """Walk a message of ``kind``; its fields named in ``once`` may come once at most, and a second is not looked into.

    Unknown fields and groups are refused. Cost: about a microsecond a field. Raises: WalkError.
    """
    _Walk(memoryview(body), limits).message(0, len(body), kind, depth=0, once=once)


class _Walk:
    def __init__(self, body: memoryview, limits: WalkLimits) -> None:
        self._body, self._limits, self._fields = body, limits, 0

    def message(
        self, start: int, end: int, kind: Descriptor, *, depth: int, once: frozenset[str] = frozenset()
    ) -> None:
        """Walk the message between two offsets."""
        if depth > self._limits.depth:
            raise WalkError("messages lie too deep in one another")
        known: dict[int, Any] = kind.fields_by_number
        seen: set[str] = set()
        for number, wire_type, inside, after in self._level(start, end):
            field = known.get(number)
            if field is None or (field.name in once and field.name in seen):
                raise WalkError("a field that no such message has, or a second one of its kind")
            seen.add(field.name)
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                if wire_type != LENGTH:
                    raise WalkError("a message without a length")
                self.message(inside, after, field.message_type, depth=depth + 1)

    def _level(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield number, wire type, start and end of the content of each field of one level."""
        at = start
        while at < end:
            self._fields += 1
            if self._fields > self._limits.fields:
                raise WalkError("too many fields")
            key, inside = self._varint(at, end)
            number, wire_type = key >> 3, key & 7
            if wire_type == VARINT:
                at = self._varint(inside, end)[1]
            elif wire_type == LENGTH:
                length, inside = self._varint(inside, end)
                at = inside + length
            elif wire_type in FIXED_BYTES:
                at = inside + FIXED_BYTES[wire_type]
            else:
                raise WalkError("a group, which Flower does not use")
            if at > end:
                raise WalkError("a field reaches beyond its message")
            yield number, wire_type, inside, at

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return a number and the offset after it."""
        value = 0
        for place in range(LONGEST_VARINT):
            if at + place >= end:
                break
            byte = self._body[at + place]
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value, at + place + 1
        raise WalkError("a number that does not end")
