"""A body in segments of 2^20 words: encoded, masked and unmasked chunk by chunk, if asked in parallel.

Within a segment every chunk of 128 KiB is encoded, packed and masked while it is in cache, so memory is read once and
written once however many masks there are. Segments are independent (``common.secagg.streams``): the result does not
depend on the number of threads.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.secagg.fixed_point import Encoder, Lattice
from common.secagg.streams import CHUNK_BYTES, SEGMENT_WORDS, DitherStream, SegmentMask, Stream
from common.secagg.words import LatticeValues, WordFormat, Words

CHUNK_COORDINATES = CHUNK_BYTES // 4

Found = TypeVar("Found")


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

        return sum(_for_each_segment(mask_segment, words.size, threads)) % (1 << 32)

    def _mask_segment(self, segment: int, body: NDArray[Any], words: Words, streams: Sequence[Stream]) -> int:
        encoder = _SegmentEncoder(self, body, words.size, segment)
        mask = SegmentMask(streams, segment)
        for start, chunk in _chunks_of(words, segment):
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


@dataclass(frozen=True)
class SumFacts:
    """What the checks of a sum need: its least and largest coordinate (or 0), its sum modulo 2^32, its spare bits."""

    low: int
    high: int
    checksum: int
    spare_bits_are_zero: bool


def unmask_and_read(
    words: Words,
    values: LatticeValues,
    streams: Sequence[Stream],
    *,
    word_format: WordFormat,
    offset: int,
    threads: int,
) -> SumFacts:
    """Add the streams to a summed body in place, read its coordinates, and gather what is to be checked: in one pass.

    Shapes: words (W,); values (N,) int32 from ``WordFormat.memory_for_values``, overwritten.
    """

    def read(segment: int) -> SumFacts:
        reader = _SegmentReader(word_format, values, words.size, offset)
        mask = SegmentMask(streams, segment)
        for start, chunk in _chunks_of(words, segment):
            mask.add_to(chunk)
            reader.read(chunk, start)
        return reader.facts()

    found = _for_each_segment(read, words.size, threads)
    return SumFacts(
        low=min(each.low for each in found),
        high=max(each.high for each in found),
        checksum=sum(each.checksum for each in found) % (1 << 32),
        spare_bits_are_zero=all(each.spare_bits_are_zero for each in found),
    )


class _SegmentReader:
    """Turns the unmasked words of one segment into coordinates, chunk by chunk, and keeps what is to be checked."""

    def __init__(self, word_format: WordFormat, values: LatticeValues, body_words: int, offset: int) -> None:
        self._format, self._values, self._plane, self._offset = word_format, values, body_words, offset
        self._low = self._high = 0
        self._spare_bits_are_zero = True
        self._sums = np.zeros(CHUNK_BYTES // word_format.dtype.itemsize, np.int32)

    def read(self, words: Words, start: int) -> None:
        """Read the coordinates that ``words`` (beginning at word ``start`` of the body) carry."""
        for lane in range(self._format.lanes):
            first = lane * self._plane + start
            part = self._values[first : min(first + words.size, (lane + 1) * self._plane)]
            if part.size:
                self._format.unpack(words, part, lane=lane, offset=self._offset)
                self._low, self._high = min(self._low, int(part.min())), max(self._high, int(part.max()))
                self._sums[: part.size] += part
        self._spare_bits_are_zero &= self._format.spare_bits_are_zero(words)

    def facts(self) -> SumFacts:
        """Return what was found so far."""
        return SumFacts(self._low, self._high, _sum_modulo(self._sums), self._spare_bits_are_zero)


def _chunks_of(words: Words, segment: int) -> Iterator[tuple[int, Words]]:
    """Yield the chunks of one segment, each with the number of its first word."""
    chunk_words = CHUNK_BYTES // words.itemsize
    end = min((segment + 1) * SEGMENT_WORDS, words.size)
    for start in range(segment * SEGMENT_WORDS, end, chunk_words):
        yield start, words[start : min(start + chunk_words, end)]


def _for_each_segment(work: Callable[[int], Found], words: int, threads: int) -> list[Found]:
    """Call ``work`` for each segment number, in parallel if asked; return what it returned, in order."""
    segments = range(-(-words // SEGMENT_WORDS))
    if threads <= 1 or len(segments) == 1:
        return list(map(work, segments))
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(work, segments))


def _sum_modulo(values: LatticeValues) -> int:
    return int(values.sum(dtype=np.int64)) % (1 << 32)
