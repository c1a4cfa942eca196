"""The vector of one round: encode and mask at a site, add, unmask, check and decode at the server.

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

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from common.errors import ExitCode, FedwardError
from common.secagg.errors import VectorRefusedError
from common.secagg.fixed_point import Lattice, choose_lattice
from common.secagg.segments import CHUNK_COORDINATES, SegmentWork, unmask_and_read
from common.secagg.streams import KEY_BYTES, META_SEGMENT, Stream, add_segment, check_streams
from common.secagg.words import LatticeValues, WordFormat, Words, word_format

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


@dataclass(frozen=True)
class MaskedVector:
    """What leaves the site: the masked words, uint8 (spec.payload_bytes,)."""

    payload: NDArray[np.uint8]

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the payload, d_u: what the site signs."""
        return hashlib.sha256(self.payload.data).digest()


def mask_vector(
    spec: VectorSpec,
    meta: NDArray[np.uint64],
    body: NDArray[Any],
    streams: Sequence[Stream],
    *,
    dither: bytes | None = None,
    threads: int = 1,
) -> MaskedVector:
    """Encode, checksum and mask one site's vector.

    Shapes: meta (spec.meta_words,) uint64; body (spec.body_length,), float32, or int32 / int64 already on the lattice
    (``spec.lattice``), which travel as they are. ``streams``: (32-byte key, +1 or -1) for b_u and for each pair.
    ``dither``: 32 random bytes for stochastic rounding, fresh for each call; only tests pass it.
    ``threads``: segments of 2^20 words are masked in parallel; the result does not depend on it.
    Guarantee: the payload minus the streams is exactly the lattice vector; each key masks meta and body with
    disjoint keystream.
    Raises: VectorRefusedError for a wrong shape or type, NaN, infinity, an integer off the lattice; and for no stream
    at all or a key that comes twice, because masks that cancel would let the update out in the clear.
    """
    keys = [key for key, _ in streams] + ([] if dither is None else [dither])
    if not streams or len(set(keys)) < len(keys):
        raise VectorRefusedError("a vector needs at least one mask, and each mask a key of its own; nothing was sent")
    return MaskedVector(_encode(spec, meta, body, streams, dither=dither, threads=threads))


def encode_vector(
    spec: VectorSpec, meta: NDArray[np.uint64], body: NDArray[Any], *, dither: bytes | None = None
) -> NDArray[np.uint8]:
    """Return the payload without masks, uint8 (spec.payload_bytes,): for tests and benchmarks; it must never be sent.

    Shapes and errors as in ``mask_vector``.
    """
    return _encode(spec, meta, body, [], dither=dither, threads=1)


def _encode(
    spec: VectorSpec,
    meta: NDArray[np.uint64],
    body: NDArray[Any],
    streams: Sequence[Stream],
    *,
    dither: bytes | None,
    threads: int,
) -> NDArray[np.uint8]:
    spec.check()
    _check_inputs(spec, meta, body)
    payload = np.empty(spec.payload_bytes, np.uint8)
    meta_words, words = spec.views(payload)
    work = SegmentWork(spec.word_format, spec.lattice, os.urandom(KEY_BYTES) if dither is None else dither)
    checksum = work.encode_and_mask(body, words, streams, threads=threads)
    meta_words[:OWN_META_WORDS] = (1, checksum)
    meta_words[OWN_META_WORDS:] = meta
    add_segment(meta_words, streams, META_SEGMENT)
    return payload


def _check_inputs(spec: VectorSpec, meta: NDArray[Any], body: NDArray[Any]) -> None:
    if meta.dtype != np.uint64 or meta.shape != (spec.meta_words,):
        raise VectorRefusedError(f"meta is {meta.dtype} {meta.shape}; it must be uint64 ({spec.meta_words},)")
    if body.shape != (spec.body_length,):
        raise VectorRefusedError(f"the body has the shape {body.shape}; the plan says ({spec.body_length},)")


class SumCheckCode(StrEnum):
    """Which check of an unmasked sum failed; a fixed code that may travel."""

    PARTICIPANTS = "sum-participants"
    CHECKSUM = "sum-checksum"
    RANGE = "sum-range"


class SumCheckFailed(FedwardError):  # noqa: N818 (reads as an event of the protocol, like its other aborts)
    """An unmasked sum is not a sum of honest vectors: a mask is wrong or missing, or a site sent garbage."""

    exit_code: ClassVar[ExitCode] = ExitCode.PROTOCOL_ABORTED

    def __init__(self, code: SumCheckCode) -> None:
        super().__init__(f"the unmasked sum was refused ({code}); the round is void, start the next attempt")
        self.code = code


@dataclass(frozen=True)
class SummedVector:
    """The sum over the participants, checked.

    Attributes:
        meta: sums of the caller's words modulo 2^64, uint64 (spec.meta_words,); view as int64 where signed.
        body_sum: sums of the lattice values, int32 (spec.body_length,), exact.
        participants: number of sites in the sum.
        lattice: what one unit of ``body_sum`` stands for.
    """

    meta: NDArray[np.uint64]
    body_sum: LatticeValues
    participants: int
    lattice: Lattice

    def decode_sum(self, divisor: float = 1.0, *, in_place: bool = False) -> NDArray[np.float32]:
        """Return body_sum · step / divisor as float32 (spec.body_length,).

        With ``in_place`` the result takes the memory of ``body_sum``, whose integers are then gone: a server with a
        100 M vector never holds a second one.
        Guarantee: relative error of a coordinate at most 2^-22 (2^-24 if the divisor is a power of two).
        """
        decoded = self.body_sum.view(np.float32) if in_place else np.empty(self.body_sum.size, np.float32)
        scale, scratch = np.float32(self.lattice.step / divisor), np.empty(CHUNK_COORDINATES, np.float32)
        for start in range(0, decoded.size, CHUNK_COORDINATES):
            integers = self.body_sum[start : start + CHUNK_COORDINATES]
            real = scratch[: integers.size]
            np.copyto(real, integers, casting="same_kind")
            np.multiply(real, scale, out=decoded[start : start + CHUNK_COORDINATES])
        return decoded

    def decode_mean(self, *, in_place: bool = False) -> NDArray[np.float32]:
        """Return the mean over the participants as float32 (spec.body_length,); ``in_place`` as in ``decode_sum``."""
        return self.decode_sum(self.participants, in_place=in_place)


class Accumulator:
    """The server's running sum of one round: add payloads, remove masks, check, once.

    Holds one vector of ``spec.payload_bytes``; ``add`` reads its argument in place. Masks are only noted until
    ``finish``, which removes them all while it reads the memory once.
    """

    def __init__(self, spec: VectorSpec) -> None:
        spec.check()
        self._spec = spec
        self._meta, self._words = spec.views(np.zeros(spec.payload_bytes, np.uint8))
        self._is_zero = True
        self._streams: list[Stream] = []
        self._threads = 1

    def add(self, payload: bytes | memoryview | NDArray[np.uint8]) -> None:
        """Add one site's masked vector modulo the words.

        Raises: VectorRefusedError if its length is not ``spec.payload_bytes``.
        """
        incoming = np.frombuffer(payload, np.uint8)
        if incoming.size != self._spec.payload_bytes:
            raise VectorRefusedError(
                f"a masked vector has {incoming.size} bytes; this round's have {self._spec.payload_bytes}"
            )
        for total, words in zip((self._meta, self._words), self._spec.views(incoming), strict=True):
            if self._is_zero:
                np.copyto(total, words)  # the memory is touched for the first time: copying is cheaper than adding
            else:
                np.add(total, words, out=total)
        self._is_zero = False

    def apply_streams(self, streams: Sequence[Stream], threads: int = 1) -> None:
        """Note keystreams to be added with the signs given: -1 removes a self mask that its site added.

        Raises: VectorRefusedError if a key is not 32 bytes or a sign neither +1 nor -1; then none is noted.
        """
        check_streams(streams)
        self._streams += streams
        self._threads = threads

    def finish(self, participants: int) -> SummedVector:
        """Remove the masks, check the sum over ``participants`` sites and return it; the accumulator is then empty.

        Raises: SumCheckFailed with the code of the first check that fails: participant counter, range (guard bits),
        checksum. VectorRefusedError if the number of participants is impossible.
        """
        spec = self._spec
        if not 1 <= participants <= spec.cohort_maximum:
            raise VectorRefusedError(f"{participants} participants; the plan allows 1 to {spec.cohort_maximum}")
        meta, words, streams = self._meta, self._words, self._streams
        del self._meta, self._words, self._streams
        add_segment(meta, streams, META_SEGMENT)
        if int(meta[0]) != participants:
            raise SumCheckFailed(SumCheckCode.PARTICIPANTS)
        largest = participants * spec.lattice.limit
        values = spec.word_format.memory_for_values(words, spec.body_length)
        facts = unmask_and_read(
            words, values, streams, word_format=spec.word_format, offset=largest, threads=self._threads
        )
        if facts.low < -largest or facts.high > largest or not facts.spare_bits_are_zero:
            raise SumCheckFailed(SumCheckCode.RANGE)
        if int(meta[1]) % (1 << 32) != facts.checksum:
            raise SumCheckFailed(SumCheckCode.CHECKSUM)
        # a copy: a view of the meta words would keep the whole accumulator in memory
        return SummedVector(meta[OWN_META_WORDS:].copy(), values, participants, spec.lattice)
