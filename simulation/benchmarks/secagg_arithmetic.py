"""The arithmetic of both protocols on the same vectors: encode, mask at a site; add, unmask, decode at the server.

CPU time of one thread, interleaved, best of several. Keys and shares are made before the clock starts. Our site
ends, and our server begins, with the bytes that travel: they are the words. Flower's functions for that
(``ndarray_to_bytes``, ``bytes_to_ndarray``) are timed apart.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from flwr.common import ndarray_to_bytes
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition
from numpy.typing import NDArray

from common.secagg.accumulator import Accumulator, SummedVector
from common.secagg.masking import encode_vector, mask_vector
from common.secagg.streams import CHUNK_BYTES, KEY_BYTES, SEGMENT_WORDS, Stream, open_keystream
from common.secagg.vector import VectorSpec
from simulation.benchmarks.cpu_time import best_seconds
from simulation.benchmarks.flower_secagg import (
    Arrays,
    FlowerSecAgg,
    decode_arrays,
    encode_and_mask,
    unmask_and_decode,
)

NO_META = np.zeros(0, np.uint64)


def site_vector(site: int, parameters: int) -> NDArray[np.float32]:
    """Return the update of one simulated site, float32 (parameters,): reproducible, standard deviation 0.01."""
    update = np.random.default_rng(site).standard_normal(parameters, np.float32)
    update *= np.float32(0.01)
    return update


class OurMasks:
    """The streams of every site and of the server, for sites 0 .. n-1 of which the last ``dropped`` leave."""

    def __init__(self, sites: int, dropped: int) -> None:
        self.survivors = range(sites - dropped)
        self._sites = range(sites)
        self._self_keys = [secrets.token_bytes(KEY_BYTES) for _ in self._sites]
        self._pair_keys = {(u, v): secrets.token_bytes(KEY_BYTES) for v in self._sites for u in range(v)}

    def of_site(self, u: int) -> list[Stream]:
        """Return b_u and the pairwise keys with their signs."""
        return [(self._self_keys[u], 1)] + [self._pair(u, v) for v in self._sites if v != u]

    def _pair(self, u: int, v: int) -> Stream:
        return self._pair_keys[min(u, v), max(u, v)], 1 if u < v else -1

    def to_remove(self) -> list[Stream]:
        """Return what the server applies: minus each survivor's b_u; what pairs with the dropped left behind."""
        left_behind = [self._pair(v, u) for v in self._sites[len(self.survivors) :] for u in self.survivors]
        return [(self._self_keys[u], -1) for u in self.survivors] + left_behind


@dataclass(frozen=True)
class SiteTimes:
    """CPU seconds of one site's arithmetic."""

    flower_s: float
    flower_serialise_s: float
    ours_s: float
    encode_s: float
    keystream_s: float


def time_site(spec: VectorSpec, flower: FlowerSecAgg, masks: OurMasks, *, repeats: int) -> SiteTimes:
    """Time encode + masks of one site in both protocols, ours without masks, and one keystream alone."""
    update = site_vector(0, spec.body_length)
    seeds, streams = flower.mask_seeds(flower.node_ids[0]), masks.of_site(0)
    masked = encode_and_mask(update, seeds)
    best = best_seconds(
        {
            "flower": lambda: encode_and_mask(update, seeds),
            "ours": lambda: mask_vector(spec, NO_META, update, streams),
            "encode": lambda: encode_vector(spec, NO_META, update),
            "keystream": lambda: make_keystream(spec),
            "serialise": lambda: [ndarray_to_bytes(array) for array in masked],
        },
        repeats=repeats,
    )
    return SiteTimes(best["flower"], best["serialise"], best["ours"], best["encode"], best["keystream"])


def make_keystream(spec: VectorSpec) -> None:
    """Make the keystream of one mask and use it for nothing: the floor of any mask with AES-256 through OpenSSL."""
    segment_bytes = SEGMENT_WORDS * spec.word_format.dtype.itemsize
    body_bytes = spec.body_words * spec.word_format.dtype.itemsize
    zeros, out = memoryview(bytes(CHUNK_BYTES)), memoryview(bytearray(CHUNK_BYTES))
    for segment, start in enumerate(range(0, body_bytes, segment_bytes)):
        keystream = open_keystream(bytes(KEY_BYTES), segment)
        for at in range(start, min(start + segment_bytes, body_bytes), CHUNK_BYTES):
            size = min(CHUNK_BYTES, body_bytes - at)
            keystream.update_into(zeros[:size], out[:size])


@dataclass(frozen=True)
class ServerTimes:
    """CPU seconds of the server's arithmetic, and how right both results were."""

    flower_s: float
    flower_deserialise_s: float
    ours_s: float
    exact: bool
    flower_mean_error: float


def time_server(spec: VectorSpec, flower: FlowerSecAgg, masks: OurMasks, *, repeats: int) -> ServerTimes:
    """Time add + unmask + decode of a whole cohort in both protocols, and check both results."""
    bodies = [benchmark_body(spec, u) for u in masks.survivors]
    payloads = [mask_vector(spec, NO_META, body, masks.of_site(u)).payload for u, body in enumerate(bodies)]
    to_remove, flower_to_remove = masks.to_remove(), flower.masks_to_remove(flower.true_secrets())
    total, flower_add_s, deserialise_s = _flower_sum(spec, flower, repeats=repeats)
    best = best_seconds(
        {
            "flower": lambda: unmask_and_decode(total, flower_to_remove, len(flower.active)),
            "ours": lambda: sum_up(spec, payloads, to_remove).decode_mean(in_place=True),
        },
        repeats=repeats,
    )
    ours = sum_up(spec, payloads, to_remove)
    flower_mean = unmask_and_decode(total, flower_to_remove, len(flower.active))
    return ServerTimes(
        flower_s=flower_add_s + best["flower"],
        flower_deserialise_s=deserialise_s,
        ours_s=best["ours"],
        exact=np.array_equal(ours.body_sum, sum(independent_encoding(spec, u) for u in masks.survivors)),
        flower_mean_error=float(np.abs(flower_mean - _true_mean(spec, len(flower.active))).max()),
    )


def benchmark_body(spec: VectorSpec, site: int) -> NDArray[Any]:
    """Return what a site hands over: real coordinates, or lattice values where rounding is random (no exact check)."""
    return site_vector(site, spec.body_length) if spec.word_bits == 32 else independent_encoding(spec, site)


def independent_encoding(spec: VectorSpec, site: int) -> NDArray[np.int64]:
    """Encode a site's update without ``fixed_point``: float64, rounded to nearest, int64 (parameters,)."""
    reach = spec.lattice.limit * spec.lattice.step
    clipped = np.clip(site_vector(site, spec.body_length).astype(np.float64), -reach, reach)
    return np.rint(clipped / spec.lattice.step).astype(np.int64)


def sum_up(spec: VectorSpec, payloads: Sequence[NDArray[np.uint8]], to_remove: Sequence[Stream]) -> SummedVector:
    """Do the server's arithmetic: add every payload, remove the masks, check."""
    total = Accumulator(spec)
    for payload in payloads:
        total.add(payload)
    total.apply_streams(to_remove)
    return total.finish(len(payloads))


def _flower_sum(spec: VectorSpec, flower: FlowerSecAgg, *, repeats: int) -> tuple[Arrays, float, float]:
    """Return Flower's sum of the masked vectors, and the CPU seconds of adding and of reading them from bytes.

    One masked vector is in memory at a time.
    """
    total: Arrays = []
    add_s = read_s = 0.0
    for node_id in flower.active:
        masked = encode_and_mask(site_vector(node_id - 1, spec.body_length), flower.mask_seeds(node_id))
        octets = [ndarray_to_bytes(array) for array in masked]
        read_s += best_seconds({"read": partial(decode_arrays, octets)}, repeats=repeats)["read"]
        if total:
            add = partial(parameters_addition, total, masked)
            add_s += best_seconds({"add": add}, repeats=repeats)["add"]
            total = add()
        else:
            total = masked
    return total, add_s, read_s


def _true_mean(spec: VectorSpec, survivors: int) -> NDArray[np.float64]:
    total = np.zeros(spec.body_length, np.float64)
    for site in range(survivors):
        total += site_vector(site, spec.body_length)
    return total / survivors
