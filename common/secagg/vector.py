"""The vector of one round: what all sites agree on, its segments and its sums.

A site encodes and masks it (``masking``); the server adds, unmasks, checks and decodes the sum (``accumulator``).

```
payload    = meta || body, little-endian words, the same length for every site of a round
meta       = 1, checksum, caller's words        uint64, sums modulo 2^64
body       = enc(x_1) .. enc(x_N)               words of the plan's width (common.secagg.words)
checksum   = sum of enc(x_i) modulo 2^32        of the site's own body
y_u        = payload_u + sum over streams of sign · PRG(key)
sum        = sum of y_u over U3 - masks         = sum of payload_u, exactly
```

The first meta word is a participant counter: its sum must be |U3|. The second lets the server compare the sum of the
bodies with the sum of the checksums. Both, and the guard bits of every coordinate, see a wrong or missing mask; none
sees a wrong *update* (``docs/threat-model.md``).

Memory: a site holds its body and the payload (two copies of the vector), the server its accumulator and one incoming
payload; everything else is a few chunks of 128 KiB for each thread.

Source: Bonawitz et al., CCS 2017, figure 4, round 2 (masked input collection) and round 4 (unmasking).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from common.secagg.errors import VectorRefusedError
from common.secagg.fixed_point import Lattice, choose_lattice
from common.secagg.words import WordFormat, Words, word_format

OWN_META_WORDS = 2
LARGEST_META = 1 << 16
LARGEST_BODY = 1 << 28
META_DTYPE = np.dtype("<u8")


@dataclass(frozen=True)
class VectorSpec:
    """What every site of a round must agree on before it encodes; part of the signed ORDER.

    Attributes:
        meta_words: exact integers that the caller sends along, without the two words that this module adds.
        body_length: coordinates of the update, N.
        word_bits: 32 (nearest rounding), 21 or 16 (stochastic rounding).
        guard_bits: g >= 1, the fraction 2^-g of the residues that a true sum may use.
        coordinate_range: C, a larger coordinate is clipped; in the update's own unit.
        cohort_maximum: the most sites that can be in one sum.
    """

    meta_words: int
    body_length: int
    word_bits: int
    guard_bits: int
    coordinate_range: float
    cohort_maximum: int

    def check(self) -> None:
        """Refuse a specification whose sums could be inexact, unchecked, or too large to hold.

        Raises: VectorRefusedError, naming the value and its limit.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not field.type:
                raise VectorRefusedError(f"{field.name} is of type {type(value).__name__}; it must be a plain number")
        if not 0 <= self.meta_words <= LARGEST_META:
            raise VectorRefusedError(f"meta_words is {self.meta_words}; it must lie between 0 and {LARGEST_META}")
        if not 1 <= self.body_length <= LARGEST_BODY:
            raise VectorRefusedError(f"body_length is {self.body_length}; it must lie between 1 and {LARGEST_BODY}")
        _ = self.lattice  # checks the rest

    @cached_property
    def word_format(self) -> WordFormat:
        """The words of the body."""
        return word_format(self.word_bits)

    @cached_property
    def lattice(self) -> Lattice:
        """The grid of the body: integers in [-lattice.limit, lattice.limit] stand for multiples of lattice.step."""
        return choose_lattice(
            self.word_format,
            guard_bits=self.guard_bits,
            cohort_maximum=self.cohort_maximum,
            coordinate_range=self.coordinate_range,
        )

    @property
    def meta_bytes(self) -> int:
        """Bytes of the meta segment."""
        return META_DTYPE.itemsize * (OWN_META_WORDS + self.meta_words)

    @property
    def body_words(self) -> int:
        """Words W of the body."""
        return self.word_format.word_count(self.body_length)

    @property
    def payload_bytes(self) -> int:
        """Bytes of every masked vector of the round."""
        return self.meta_bytes + self.body_words * self.word_format.dtype.itemsize

    def to_fields(self) -> dict[str, int | float]:
        """Return the six settings, for signing and sending."""
        return asdict(self)

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Make a specification from what ``to_fields`` gave, checked.

        Raises: VectorRefusedError for a missing or unknown name, a wrong type, or a value that ``check`` refuses.
        """
        if set(values) != {field.name for field in fields(cls)}:
            raise VectorRefusedError("the vector's specification has missing or unknown settings")
        spec = cls(**values)
        spec.check()
        return spec

    def views(self, payload: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], Words]:
        """Return the meta and the body segment of a payload as words, without copying."""
        return payload[: self.meta_bytes].view(META_DTYPE), payload[self.meta_bytes :].view(self.word_format.dtype)
