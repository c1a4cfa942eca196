"""Mask streams: PRG(k) of the paper, as AES-256 in counter mode, in segments that can be made independently.

```
segment i of PRG(k) = AES-256-CTR(k, first block = BE96(i) || BE32(2)), 2^20 little-endian words
body                = segments 0, 1, 2 ...
meta                = segment 2^96 - 1 (no body is that long, so the two never share keystream)
```

The counter of a segment starts at 2 because AES-256-GCM with the 96-bit nonce BE96(i) encrypts from that block on: the
same keystream comes out of both modes, and where OpenSSL has a vectorised GCM (VAES) it is a quarter faster than CTR.
GCM is used only as that faster counter mode: ``finalize`` is never called, no tag is made or needed, and no key is used
for anything else. Which mode is used is timed once in a process, and both must agree on a sample.

A segment is at most 2^23 bytes: far below the 2^36 bytes of a GCM nonce and the 2^32 blocks of its counter.

Source: NIST SP 800-38A section 6.5 (CTR), SP 800-38D section 7.1 (the counter of GCM).
"""

import time
from collections.abc import Sequence
from enum import StrEnum
from functools import cache

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from common.secagg.errors import VectorRefusedError
from common.secagg.words import Words

SEGMENT_WORDS = 1 << 20
META_SEGMENT = (1 << 96) - 1
KEY_BYTES = 32
CHUNK_BYTES = 128 << 10  # zeros, keystream and sum of a chunk stay together in a 1 MiB second-level cache

Stream = tuple[bytes, int]
"""A 32-byte key and the sign (+1 or -1) with which its keystream is added."""

_ZEROS = memoryview(bytes(CHUNK_BYTES))


class KeystreamMode(StrEnum):
    """The code path that makes the keystream; the bytes are the same."""

    CTR = "ctr"
    GCM = "gcm"


def open_keystream(key: bytes, segment: int, mode: KeystreamMode | None = None) -> CipherContext:
    """Return a context whose ``update_into(zeros, out)`` yields the next bytes of that segment.

    Raises: VectorRefusedError if the key is not 32 bytes.
    """
    if len(key) != KEY_BYTES:
        raise VectorRefusedError(f"a mask key has {len(key)} bytes; AES-256 needs {KEY_BYTES}")
    nonce = segment.to_bytes(12, "big")
    if (mode or fastest_mode()) is KeystreamMode.GCM:
        return Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
    return Cipher(algorithms.AES(key), modes.CTR(nonce + b"\x00\x00\x00\x02")).encryptor()


@cache
def fastest_mode() -> KeystreamMode:
    """Time both modes once (about 2 ms) and return the faster one; CTR unless GCM gives the very same bytes."""
    sample = {mode: open_keystream(bytes(KEY_BYTES), 7, mode).update(bytes(64)) for mode in KeystreamMode}
    if sample[KeystreamMode.CTR] != sample[KeystreamMode.GCM]:
        return KeystreamMode.CTR
    return min(KeystreamMode, key=_time_mode)


def _time_mode(mode: KeystreamMode) -> float:
    keystream, out = open_keystream(bytes(KEY_BYTES), 7, mode), bytearray(CHUNK_BYTES)
    best_s = float("inf")
    for _ in range(16):
        start_s = time.thread_time()
        keystream.update_into(_ZEROS, out)
        best_s = min(best_s, time.thread_time() - start_s)
    return best_s


class SegmentMask:
    """The keystreams of one segment, opened together and consumed chunk by chunk.

    Adding them all to a chunk while it is in cache is what makes ten masks cost little more than ten keystreams.
    """

    def __init__(self, streams: Sequence[Stream], segment: int) -> None:
        check_streams(streams)
        self._streams = [
            (open_keystream(key, segment).update_into, np.add if sign > 0 else np.subtract) for key, sign in streams
        ]
        self._keystream = np.empty(CHUNK_BYTES, np.uint8)

    def add_to(self, words: Words) -> None:
        """Add the next ``len(words)`` words of every stream, with its sign, modulo the word.

        Shapes: words (k,) unsigned little-endian, contiguous, at most ``CHUNK_BYTES``.
        """
        zeros, keystream = _ZEROS[: words.nbytes], self._keystream[: words.nbytes]
        out, keystream_words = keystream.data, keystream.view(words.dtype)
        for update_into, combine in self._streams:
            update_into(zeros, out)
            combine(words, keystream_words, out=words)


def check_streams(streams: Sequence[Stream]) -> None:
    """Refuse keys and signs that no stream can have.

    Raises: VectorRefusedError if a key is not 32 bytes or a sign neither +1 nor -1.
    """
    for key, sign in streams:
        if len(key) != KEY_BYTES:
            raise VectorRefusedError(f"a mask key has {len(key)} bytes; AES-256 needs {KEY_BYTES}")
        if sign not in {1, -1}:
            raise VectorRefusedError(f"a mask has the sign {sign}; it is +1 or -1")


def add_segment(words: Words, streams: Sequence[Stream], segment: int) -> None:
    """Add the streams to the words of one whole segment, in place.

    Shapes: words (k,) unsigned, contiguous, k <= SEGMENT_WORDS.
    """
    mask = SegmentMask(streams, segment)
    step = CHUNK_BYTES // words.itemsize
    for start in range(0, words.size, step):
        mask.add_to(words[start : start + step])


class DitherStream:
    """Uniform integers in {0 .. 2^bits - 1}, bits <= 16, for stochastic rounding; from a fresh key of their own."""

    def __init__(self, key: bytes, segment: int, *, bits: int) -> None:
        self._keystream = open_keystream(key, segment)
        self._unused_bits = 16 - bits
        self._out = np.empty(CHUNK_BYTES // 2, "<u2")

    def next(self, count: int) -> NDArray[np.uint16]:
        """Return the next ``count`` integers, at most 65536; they are overwritten by the next call."""
        out = self._out[:count]
        self._keystream.update_into(_ZEROS[: out.nbytes], out.view(np.uint8).data)
        if self._unused_bits:
            np.right_shift(out, self._unused_bits, out=out)
        return out
