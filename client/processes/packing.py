"""msgpack, in one place: maps of numbers, words, bytes and lists; nothing that runs code when it is read."""

from typing import Any

import msgpack  # type: ignore[import-untyped]


def packed(content: dict[str, Any]) -> bytes:
    """Return ``content`` as msgpack."""
    result: bytes = msgpack.packb(content, use_bin_type=True)
    return result


def unpacked(content: bytes | bytearray) -> dict[str, Any]:
    """Undo ``packed``.

    Raises: ValueError when it is no msgpack, or no map with words as keys.
    """
    result = msgpack.unpackb(content, raw=False, strict_map_key=True)
    if not isinstance(result, dict):
        raise ValueError("a map was expected")  # noqa: TRY004 (one error for every malformed message)
    return result
