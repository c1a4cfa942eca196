"""A body in segments of 2^20 words: encoded, masked and unmasked chunk by chunk, if asked in parallel.

Within a segment every chunk of 128 KiB is encoded, packed and masked while it is in cache, so memory is read once and
written once however many masks there are. Segments are independent (``common.secagg.streams``): the result does not
depend on the number of threads.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.secagg.fixed_point import Encoder, Lattice
from common.secagg.streams import CHUNK_BYTES, SEGMENT_WORDS, DitherStream, SegmentMask, Stream, add_segment
from common.secagg.words import LatticeValues, WordFormat, Words

CHUNK_COORDINATES = CHUNK_BYTES // 4


@dataclass(frozen=True)
class SegmentWork:
    """What turns a body into masked words: the word format, the lattice, and the key of the rounding dither."""

    word_format: WordFormat
    lattice: Lattice
    dither_key: bytes

    def encode_and_mask(self, body: NDArray[Any], words: Words, streams: Sequence[Stream], *, threads: int) -> int:
        """Write enc(body) + streams to ``words``; return the checksum of enc(body), modulo 2^32.

        Shapes: body (N,) as in ``Encoder.encode``; words (W,), overwritten.
        """

        def mask_segment(segment: int) -> int:
            return self._mask_segment(segment, body, words, streams)

        return _for_each_segment(mask_segment, words.size, threads) % (1 << 32)

    def _mask_segment(self, segment: int, body: NDArray[Any], words: Words, streams: Sequence[Stream]) -> int:
        chunk_words = CHUNK_BYTES // words.itemsize
        encoder = _SegmentEncoder(self, body, words.size, segment)
        mask = SegmentMask(streams, segment)
        end = min((segment + 1) * SEGMENT_WORDS, words.size)
        for start in range(segment * SEGMENT_WORDS, end, chunk_words):
            chunk = words[start : min(start + chunk_words, end)]
            encoder.fill(chunk, start)
            mask.add_to(chunk)
        return encoder.checksum()


class _SegmentEncoder:
    """Turns the coordinates of one segment into words, chunk by chunk, and keeps their checksum."""

    def __init__(self, work: SegmentWork, body: NDArray[Any], body_words: int, segment: int) -> None:
        self._format, self._limit, self._body, self._plane = work.word_format, work.lattice.limit, body, body_words
        chunk_words = CHUNK_BYTES // self._format.dtype.itemsize
        self._encoder = Encoder(work.lattice, self._format, chunk_words)
        self._values = np.empty(chunk_words, np.int32)
        # one running sum for each position of a chunk: adding whole chunks is three times faster than reducing each
        self._sums = np.zeros(chunk_words, np.int32)
        rounds = self._format.dither_bits > 0 and body.dtype == np.float32
        lanes, bits = self._format.lanes, self._format.dither_bits
        self._dither = [
            DitherStream(work.dither_key, segment * lanes + k, bits=bits) if rounds else None for k in range(lanes)
        ]

    def fill(self, words: Words, start: int) -> None:
        """Encode the coordinates that ``words`` (beginning at word ``start`` of the body) carry, and pack them."""
        for lane, dither in reversed(list(enumerate(self._dither))):
            first = lane * self._plane + start
            part = self._body[first : first + words.size]
            values = words.view("<i4")[: part.size] if self._format.bits == 32 else self._values[: part.size]
            self._encoder.encode(part, values, dither.next(part.size) if dither else None)
            self._sums[: part.size] += values
            self._format.pack(values, words, lane=lane, limit=self._limit)

    def checksum(self) -> int:
        """Return the sum of everything encoded so far, modulo 2^32."""
        return _sum_modulo(self._sums)


def add_streams(words: Words, streams: Sequence[Stream], *, threads: int) -> None:
    """Add keystreams with their signs to a whole body, in place."""

    def add(segment: int) -> int:
        add_segment(words[segment * SEGMENT_WORDS : (segment + 1) * SEGMENT_WORDS], streams, segment)
        return 0

    _for_each_segment(add, words.size, threads)


def _for_each_segment(work: Callable[[int], int], words: int, threads: int) -> int:
    """Call ``work`` for each segment number, in parallel if asked; return the sum of what it returned."""
    segments = range(-(-words // SEGMENT_WORDS))
    if threads <= 1 or len(segments) == 1:
        return sum(map(work, segments))
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return sum(pool.map(work, segments))


def bounds_and_sum(values: LatticeValues) -> tuple[int, int, int]:
    """Return min(0, least value), max(0, largest value), and the sum modulo 2^32, reading the memory once."""
    low, high, sums = 0, 0, np.zeros(CHUNK_COORDINATES, np.int32)
    for start in range(0, values.size, CHUNK_COORDINATES):
        part = values[start : start + CHUNK_COORDINATES]
        low, high = min(low, int(part.min())), max(high, int(part.max()))
        sums[: part.size] += part
    return low, high, _sum_modulo(sums)


def _sum_modulo(values: LatticeValues) -> int:
    return int(values.sum(dtype=np.int64)) % (1 << 32)
