"""The one injective encoding that everything hashed, signed or authenticated goes through.

    E(x1, ..., xk) = len(x1) || x1 || ... || len(xk) || xk          (each length 4 bytes, big-endian)
    H(label, ...)  = SHA-256(E("fedward-secagg/2", label, ...))

Two different argument lists of one label never give the same bytes: every length is read before its field, and the
label fixes how many fields follow and of which type. Text is UTF-8, a whole number is 8 bytes big-endian (unsigned),
a list is E of its members.
"""

import hashlib
from functools import cache
from typing import TypeAlias

PROTOCOL = "fedward-secagg/2"
DIGEST_BYTES = 32

Field: TypeAlias = "bytes | str | int | list[bytes] | list[str]"


def encode_injectively(*fields: Field) -> bytes:
    """E(x1, ..., xk) of the module's head.

    Raises: OverflowError for a negative number or one of more than 64 bits (a programming error: the wire format
    bounds every number before it comes here).
    """
    parts: list[bytes] = []
    for field in fields:
        octets = _octets(field)
        parts.append(len(octets).to_bytes(4, "big"))
        parts.append(octets)
    return b"".join(parts)


def labelled(label: str, *fields: Field) -> bytes:
    """E("fedward-secagg/2", label, ...): the text that a signature of this label signs."""
    return _beginning(label) + encode_injectively(*fields)


def digest(label: str, *fields: Field) -> bytes:
    """H(label, ...): 32 bytes."""
    return hashlib.sha256(labelled(label, *fields)).digest()


@cache
def _beginning(label: str) -> bytes:
    """E("fedward-secagg/2", label): of the handful of labels that the protocol has."""
    return encode_injectively(PROTOCOL, label)


def _octets(field: Field) -> bytes:
    if isinstance(field, bytes):
        return field
    if isinstance(field, str):
        return field.encode()
    if isinstance(field, int):
        return field.to_bytes(8, "big")
    return encode_injectively(*field)
