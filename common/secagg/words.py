"""How lattice values travel: 32-bit words, three 21-bit lanes in a 64-bit word, or 16-bit words.

A *lattice value* is an integer in [-L, L] (``common.secagg.fixed_point``). Sums of words are taken modulo 2^(word
width); ``fixed_point`` proves that the sum over the largest cohort never leaves the range of a word, or of a lane.

```
word_bits   word      lanes   a lane holds                       sum over p sites
32          uint32    1       x mod 2^32 (two's complement)      x, read back as int32
21          uint64    3       x + L, never negative              sum of the lane - p·L; bit 63 stays 0
16          uint16    1       x mod 2^16 (two's complement)      x, read back as int16
```

Lanes are *planes*: with W words, word w carries the coordinates w, W + w and 2W + w, in bits 0-20, 21-41 and 42-62.
Each plane is a contiguous slice of the body, so packing is three passes over contiguous memory. Coordinates past the
end of the body are 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.secagg.errors import VectorRefusedError

Words = NDArray[np.unsignedinteger[Any]]
LatticeValues = NDArray[np.int32]

LANE_BITS = 21
LANE_MASK = np.uint64((1 << LANE_BITS) - 1)


@dataclass(frozen=True)
class WordFormat:
    """One row of the table above.

    Attributes:
        bits: width of the modulus that a coordinate sees: 32, 21 or 16.
        dtype: numpy type of a word, little-endian.
        lanes: coordinates in one word.
        dither_bits: bits of randomness in stochastic rounding; 0 means rounding to nearest.
    """

    bits: int
    dtype: np.dtype[np.unsignedinteger[Any]]
    lanes: int
    dither_bits: int

    def word_count(self, body_length: int) -> int:
        """Return the number of words W that carry ``body_length`` coordinates."""
        return -(-body_length // self.lanes)

    def pack(self, values: LatticeValues, words: Words, *, lane: int, limit: int) -> None:
        """Put ``values`` (the coordinates of one lane, at most one for each word) into ``words``.

        Shapes: values (k,) int32, words (m,); k = m but in the last lanes, where the words past k get the coordinate 0.
        ``values`` may be a view of ``words`` (32-bit words): then nothing moves. Lanes are packed from the last to the
        first, by Horner's rule, and only after lane 0 are the words complete:

            word = x_0 + 2^21·(x_1 + 2^21·x_2) + L·(1 + 2^21 + 2^42)
        """
        if self.lanes == 1:
            if not np.may_share_memory(values, words):
                np.copyto(words, values, casting="unsafe")  # modulo 2^w, two's complement
            return
        signed = words.view("<i8")
        if lane == self.lanes - 1:
            signed[: values.size] = values
            signed[values.size :] = 0
        else:
            np.left_shift(signed, LANE_BITS, out=signed)
            np.add(signed[: values.size], values, out=signed[: values.size])
        if lane == 0:
            # x + L >= 0 in each lane, so none borrows from its neighbour
            np.add(signed, sum(limit << LANE_BITS * k for k in range(self.lanes)), out=signed)

    def unpack(self, words: Words, values: LatticeValues, *, lane: int, offset: int) -> None:
        """Read the coordinates of one lane of a sum; ``offset`` = p·L is what a packed lane carries on top.

        Shapes: words (m,); values (k,) int32 with k <= m, overwritten; for 32-bit words it may be a view of ``words``.
        """
        words = words[: values.size]
        if self.bits == 21:
            lanes = np.right_shift(words, np.uint64(LANE_BITS * lane))
            np.bitwise_and(lanes, LANE_MASK, out=lanes)
            np.subtract(lanes.view("<i8"), offset, out=values, casting="same_kind")
        elif not np.may_share_memory(words, values):
            np.copyto(values, words.view(f"<i{words.itemsize}"))

    def memory_for_values(self, words: Words, body_length: int) -> LatticeValues:
        """Return where the values of a sum go, (body_length,) int32: the words' own memory if they have 32 bits."""
        return words.view("<i4")[:body_length] if self.bits == 32 else np.empty(body_length, np.int32)

    def spare_bits_are_zero(self, words: Words) -> bool:
        """Tell whether the bits that no lane uses (bit 63) are 0, as they are in every true sum."""
        return self.lanes == 1 or not bool(np.bitwise_or.reduce(words) >> np.uint64(63))


WORD_FORMATS = {
    32: WordFormat(bits=32, dtype=np.dtype("<u4"), lanes=1, dither_bits=0),
    21: WordFormat(bits=21, dtype=np.dtype("<u8"), lanes=3, dither_bits=11),
    16: WordFormat(bits=16, dtype=np.dtype("<u2"), lanes=1, dither_bits=16),
}


def word_format(word_bits: int) -> WordFormat:
    """Return the format of that width.

    Raises: VectorRefusedError if the width is not 32, 21 or 16.
    """
    if word_bits not in WORD_FORMATS:
        raise VectorRefusedError(f"word_bits is {word_bits}; a plan may ask for 32, 21 or 16")
    return WORD_FORMATS[word_bits]
