"""Add masked vectors, remove the masks of the sum, check and decode it (``vector`` has the formulae): the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from common.errors import ExitCode, FedwardError
from common.secagg.errors import VectorRefusedError
from common.secagg.fixed_point import Lattice
from common.secagg.segments import CHUNK_COORDINATES, unmask_and_read
from common.secagg.streams import META_SEGMENT, Stream, add_segment, check_streams
from common.secagg.vector import OWN_META_WORDS, VectorSpec
from common.secagg.words import LatticeValues


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
