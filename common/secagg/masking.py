"""Encode, checksum and mask one site's vector (``vector`` has the formulae): what a site does."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.secagg.errors import VectorRefusedError
from common.secagg.segments import SegmentWork
from common.secagg.streams import KEY_BYTES, META_SEGMENT, Stream, add_segment
from common.secagg.vector import OWN_META_WORDS, VectorSpec


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
