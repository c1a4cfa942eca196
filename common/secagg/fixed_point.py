"""Real numbers as integers on a lattice, so that sums modulo 2^w are exact.

```
C        coordinate_range: a coordinate outside [-C, C] is clipped (it is not the clipping norm of the private step)
w, g     word_bits and guard_bits
n        cohort_maximum: the most sites that can be in one sum
L_max  = floor((2^(w-1) - 1) / (n·2^g))
step   = the smallest power of two with C / step <= L_max
L      = floor(C / step), kept to 24 significant bits so that float32 holds it
enc(x) = round(clip(x, ±L·step) / step)          an integer in [-L, L]
dec(X) = X · step
```

The step is a power of two: ``x / step`` and ``X · step`` change only the exponent of a float, so neither adds an error
of its own. Nearest rounding moves a coordinate by at most step/2.

**Why no sum overflows.** |enc(x)| <= L, so a sum over p <= n sites lies in [-nL, nL], and

    n·L·2^g <= n·L_max·2^g <= 2^(w-1) - 1.

A plain word reads residues as [-2^(w-1), 2^(w-1) - 1], which holds [-nL, nL]: the residue *is* the sum. A lane of 21
bits carries x + L in [0, 2L]; its sum lies in [0, 2nL] with 2nL <= 2·(2^20 - 1) < 2^21, so no carry reaches the next
lane, and three lanes end below bit 63. ``check_no_overflow`` evaluates these inequalities on the numbers in use.

**Guard bits.** A true sum uses at most a fraction 2^-g of the residues. A coordinate that was unmasked wrongly is
uniform, so it falls into range with probability at most 2^-g; over a thousand coordinates never.

**Rounding.** 32-bit words round to nearest (deterministic, testable). 21- and 16-bit words are coarse enough that
nearest rounding would lose a small steady drift, so they round stochastically:

    enc(x) = floor((V + D) / 2^m),   V = round(x / step · 2^m),   D uniform in {0 .. 2^m - 1} from a CSPRNG,

whose expectation is exactly V / 2^m: unbiased up to step·2^-(m+1), with m = 16 (16-bit) or 11 (21-bit). V + D fits
int32 because L < 2^(w-1) and m = 32 - w.

Source: Bonawitz et al., CCS 2017 (sums modulo R); the bounds are ours.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.secagg.errors import VectorRefusedError
from common.secagg.words import LatticeValues, WordFormat

SMALLEST_RANGE = 2.0**-40
LARGEST_RANGE = 2.0**40
LARGEST_COHORT = 4096

Dither = NDArray[np.uint16]


@dataclass(frozen=True)
class Lattice:
    """The grid that coordinates are rounded to: multiples of ``step`` from -limit·step to limit·step."""

    step: float
    limit: int


def choose_lattice(
    word_format: WordFormat, *, guard_bits: int, cohort_maximum: int, coordinate_range: float
) -> Lattice:
    """Return the finest lattice that the word can carry (equations above).

    Guarantee: ``check_no_overflow`` holds for the result.
    Raises: VectorRefusedError if a setting is out of bounds or leaves less than one step on each side of 0.
    """
    if not 1 <= guard_bits <= word_format.bits - 2:
        raise VectorRefusedError(
            f"guard_bits is {guard_bits}; with 0 a wrong unmasking cannot be seen, and {word_format.bits}-bit words "
            f"allow at most {word_format.bits - 2}"
        )
    if not 1 <= cohort_maximum <= LARGEST_COHORT:
        raise VectorRefusedError(f"cohort_maximum is {cohort_maximum}; it must lie between 1 and {LARGEST_COHORT}")
    if not SMALLEST_RANGE <= coordinate_range <= LARGEST_RANGE:  # also refuses NaN
        raise VectorRefusedError(f"coordinate_range is {coordinate_range}; it must lie between 2^-40 and 2^40")
    finest = ((1 << (word_format.bits - 1)) - 1) // (cohort_maximum << guard_bits)
    if finest < 2:  # with 2, a range that is no power of two still leaves one step on each side of 0
        raise VectorRefusedError(
            f"{word_format.bits}-bit words with {guard_bits} guard bits have no room for {cohort_maximum} sites: "
            "use wider words or fewer guard bits"
        )
    step = _power_of_two_at_least(coordinate_range, finest)
    lattice = Lattice(step=step, limit=_to_24_bits(math.floor(coordinate_range / step)))
    check_no_overflow(word_format, lattice, guard_bits=guard_bits, cohort_maximum=cohort_maximum)
    return lattice


def check_no_overflow(word_format: WordFormat, lattice: Lattice, *, guard_bits: int, cohort_maximum: int) -> None:
    """Evaluate the inequalities of the proof above on integers, without rounding.

    Raises: VectorRefusedError if a sum over ``cohort_maximum`` sites could leave the word, its guard bits, or its lane.
    """
    largest_sum = cohort_maximum * lattice.limit
    room = 1 << (word_format.bits - 1)
    if lattice.limit < 1 or largest_sum << guard_bits >= room or 2 * largest_sum >= 1 << word_format.bits:
        raise VectorRefusedError(
            f"{cohort_maximum} sites with coordinates up to {lattice.limit} and {guard_bits} guard bits do not fit "
            f"{word_format.bits}-bit words (limit {room - 1}): use wider words, fewer guard bits or a smaller cohort"
        )


def _power_of_two_at_least(coordinate_range: float, finest: int) -> float:
    """Return the smallest power of two that is >= coordinate_range / finest; exact, by exponents."""
    step = math.ldexp(1.0, math.frexp(coordinate_range / finest)[1])
    while coordinate_range <= finest * (step / 2):
        step /= 2
    return step


def _to_24_bits(limit: int) -> int:
    """Clear all but the 24 leading bits: what is left is exact in float32."""
    spare = max(0, limit.bit_length() - 24)
    return limit >> spare << spare


class Encoder:
    """Encode chunks of a body; holds the scratch memory, so that a 100 M vector costs none of its size.

    Chunks have at most ``chunk_length`` coordinates. One encoder belongs to one thread.
    """

    def __init__(self, lattice: Lattice, word_format: WordFormat, chunk_length: int) -> None:
        self._lattice = lattice
        self._dither_bits = word_format.dither_bits
        self._bound = np.float32(lattice.limit * lattice.step)
        self._scale = np.float32(2.0**word_format.dither_bits / lattice.step)
        self._real = np.empty(chunk_length, np.float32)
        self._finite = np.empty(chunk_length, np.bool_)

    def encode(self, body: NDArray[Any], out: LatticeValues, dither: Dither | None) -> None:
        """Write enc(body) to ``out``.

        Shapes: body (k,) float32, or int32 / int64 that is on the lattice already; out (k,) int32; dither (k,) uint16
        below 2^m for real bodies in 21- and 16-bit words, else None.
        Guarantee: every value written lies in [-L, L].
        Raises: VectorRefusedError for NaN or infinity, for an integer outside [-L, L], and for another dtype.
        """
        if body.dtype == np.float32:
            self._encode_real(body, out, dither)
        elif body.dtype in {np.dtype(np.int32), np.dtype(np.int64)}:
            self._copy_integers(body, out)
        else:
            raise VectorRefusedError(f"the body is {body.dtype}; it must be float32, or int32 / int64 on the lattice")

    def _encode_real(self, body: NDArray[Any], out: LatticeValues, dither: Dither | None) -> None:
        real, finite = self._real[: body.size], self._finite[: body.size]
        if not np.isfinite(body, out=finite).all():
            raise VectorRefusedError("the update holds NaN or infinity; nothing was sent. Lower the learning rate")
        np.clip(body, -self._bound, self._bound, out=real)  # before the product: nothing can overflow
        np.multiply(real, self._scale, out=real)
        np.rint(real, out=out, casting="unsafe")
        if dither is not None:
            np.add(out, dither, out=out)
            # an arithmetic shift is floor division by 2^m
            np.right_shift(out, self._dither_bits, out=out)

    def _copy_integers(self, body: NDArray[Any], out: LatticeValues) -> None:
        limit = self._lattice.limit
        if body.size and not (body.min() >= -limit and body.max() <= limit):
            raise VectorRefusedError(
                f"an integer coordinate lies outside the lattice (limit {limit}); nothing was sent"
            )
        np.copyto(out, body, casting="unsafe")
