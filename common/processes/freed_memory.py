"""Freed memory goes back to the system: for a process that lives for weeks and holds large tensors for seconds."""

import ctypes
import functools
from collections.abc import Callable
from typing import Final

LARGE_BYTES: Final = 16 << 20  # below this nothing is worth the milliseconds


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """Return glibc's ``malloc_trim``; None where the C library has none."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    return found


def give_back(held_bytes: int) -> None:
    """Give freed pages back after work on ``held_bytes``; does nothing where that is little, or without glibc.

    glibc keeps small blocks that were freed (activations, temporaries) until a whole region is free; the next large
    tensor then comes on top. Source: malloc_trim(3). Takes about a millisecond for each 100 MB kept.
    """
    trim = _trim()
    if trim is not None and held_bytes >= LARGE_BYTES:
        trim(0)
