"""Flower 1.41's SecAgg+ for the benchmark: its own functions, called as its mod and its workflow call them.

Full graph (as many shares as sites), its default modulus 2^32, clipping range 8 and quantisation range 2^22. Dropouts
leave after their shares were sent and before their masked vector, where recovery costs most.

Source: ``flwr/client/mod/secure_aggregation/secaggplus_mod.py`` (site) and
``flwr/server/workflow/secure_aggregation/secaggplus_workflow.py`` (server), flwr 1.41.0. The four stage functions of
the mod are called as they are; the workflow needs a running grid, so its loops are repeated here, line by line.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.client.mod.secure_aggregation.secaggplus_mod import (
    SecAggPlusState,
    _collect_masked_vectors,
    _setup,
    _share_keys,
    _unmask,
)
from flwr.common import Parameters, bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine,
    factor_extract,
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_multiply,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import dequantize, quantize
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key
from numpy.typing import NDArray

CLIPPING_RANGE = 8.0
QUANTISATION_RANGE = 1 << 22
MODULUS = 1 << 32
EXAMPLES = 1000  # every site has the largest weight, so that Flower's mean is the plain mean

Arrays = list[NDArray[Any]]
Config = dict[str, Any]


class FlowerSecAgg:
    """One round of Flower's protocol in this process; node ids are 1 .. sites, the last ``dropped`` leave."""

    def __init__(self, sites: int, dropped: int, threshold: int) -> None:
        self.threshold = threshold
        self.node_ids = list(range(1, sites + 1))
        self.active, self.dead = self.node_ids[: sites - dropped], self.node_ids[sites - dropped :]
        self.states = {node_id: SecAggPlusState() for node_id in self.node_ids}
        for node_id, state in self.states.items():
            state.nid = node_id
        self._setup_config = {
            Key.SAMPLE_NUMBER: sites,
            Key.SHARE_NUMBER: sites,
            Key.THRESHOLD: threshold,
            Key.CLIPPING_RANGE: CLIPPING_RANGE,
            Key.TARGET_RANGE: QUANTISATION_RANGE,
            Key.MOD_RANGE: MODULUS,
            Key.MAX_WEIGHT: float(EXAMPLES),
        }
        self._public_keys: Config = {}
        self._forwarded: dict[int, Config] = {}

    def exchange_keys(self) -> None:
        """Let every site do its first two stages, and sort the ciphertexts by who receives them."""
        for node_id in self.node_ids:
            reply = self.setup(node_id)
            self._public_keys[str(node_id)] = [reply[Key.PUBLIC_KEY_1], reply[Key.PUBLIC_KEY_2]]
        self._forwarded = {v: {Key.SOURCE_LIST: [], Key.CIPHERTEXT_LIST: []} for v in self.node_ids}
        for node_id in self.node_ids:
            reply = self.share_keys(node_id)
            for to, ciphertext in zip(reply[Key.DESTINATION_LIST], reply[Key.CIPHERTEXT_LIST], strict=True):
                self._forwarded[to][Key.SOURCE_LIST].append(node_id)
                self._forwarded[to][Key.CIPHERTEXT_LIST].append(ciphertext)

    def setup(self, node_id: int) -> Config:
        """Stage 0 at a site."""
        return _setup(self.states[node_id], self._setup_config)  # type: ignore[arg-type]

    def share_keys(self, node_id: int) -> Config:
        """Stage 1 at a site."""
        return _share_keys(self.states[node_id], self._public_keys)  # type: ignore[arg-type]

    def collect(self, node_id: int, parameters: Parameters) -> list[bytes]:
        """Stage 2 at a site: the masked arrays as they travel."""
        config = self._forwarded[node_id]
        reply = _collect_masked_vectors(self.states[node_id], config, EXAMPLES, parameters)  # type: ignore[arg-type]
        masked: list[bytes] = reply[Key.MASKED_PARAMETERS]  # type: ignore[assignment]
        return masked

    def unmask_reply(self, node_id: int) -> Config:
        """Stage 3 at a site."""
        config = {Key.ACTIVE_NODE_ID_LIST: self.active, Key.DEAD_NODE_ID_LIST: self.dead}
        return _unmask(self.states[node_id], config)  # type: ignore[arg-type]

    def mask_seeds(self, node_id: int) -> list[tuple[bytes, int]]:
        """Return the seeds and signs of a site's masks: its own, then one for each peer."""
        state = self.states[node_id]
        return [(state.rd_seed, 1)] + [
            (self._agreed(state.sk1, peer), 1 if node_id > peer else -1) for peer in self.node_ids if peer != node_id
        ]

    def _agreed(self, secret_key: bytes, peer: int) -> bytes:
        public_key = bytes_to_public_key(self._public_keys[str(peer)][0])
        return generate_shared_key(bytes_to_private_key(secret_key), public_key)

    def true_secrets(self) -> dict[int, bytes]:
        """Return what ``recovered_secrets`` would, without the work."""
        seeds = {node_id: self.states[node_id].rd_seed for node_id in self.active}
        return seeds | {node_id: self.states[node_id].sk1 for node_id in self.dead}

    def recovered_secrets(self, replies: Iterable[Config]) -> dict[int, bytes]:
        """Rebuild the seed of every active site and the key of every dead one from the shares in the replies."""
        collected: dict[int, list[bytes]] = {node_id: [] for node_id in self.node_ids}
        for reply in replies:
            for owner, share in zip(reply[Key.NODE_ID_LIST], reply[Key.SHARE_LIST], strict=True):
                collected[owner].append(share)
        return {node_id: combine_shares(shares) for node_id, shares in collected.items()}

    def masks_to_remove(self, secrets: dict[int, bytes]) -> list[tuple[bytes, int]]:
        """Return the seeds and signs that the server applies to the sum."""
        masks = [(secrets[node_id], -1) for node_id in self.active]
        for node_id in self.dead:
            peers = [v for v in self.node_ids if v != node_id]
            masks += [(self._agreed(secrets[node_id], v), 1 if node_id > v else -1) for v in peers]
        return masks


@dataclass(frozen=True)
class FlowerSteps:
    """What surrounds Flower's arithmetic, ready to be timed again and again.

    Attributes:
        site: the four stages of one site, arithmetic and serialisation included.
        server: recovery of secrets and keys, which comes on top of the arithmetic.
        masked_bytes: bytes that carry one masked vector.
    """

    site: Mapping[str, Callable[[], Any]]
    server: Mapping[str, Callable[[], Any]]
    masked_bytes: int


def flower_steps(flower: FlowerSecAgg, update: NDArray[np.float32]) -> FlowerSteps:
    """Prepare a round of which every step can be repeated, after ``flower.exchange_keys()``."""
    spare = FlowerSecAgg(len(flower.node_ids), len(flower.dead), flower.threshold)
    spare.exchange_keys()
    node_id, parameters = flower.node_ids[0], ndarrays_to_parameters([update])
    one_number = ndarrays_to_parameters([update[:1]])
    for v in flower.active:
        flower.collect(v, one_number)  # here a site opens the shares it was sent
    replies = [flower.unmask_reply(v) for v in flower.active]
    recovered = flower.recovered_secrets(replies)
    if recovered != flower.true_secrets():
        raise RuntimeError("Flower's secret sharing rebuilt another secret: the comparison would be of nothing")
    return FlowerSteps(
        site={
            "setup": lambda: spare.setup(spare.node_ids[1]),
            "share keys": lambda: spare.share_keys(node_id),
            "collect": lambda: flower.collect(node_id, parameters),
            "unmask": lambda: flower.unmask_reply(node_id),
        },
        server={
            "recover": lambda: flower.recovered_secrets(replies),
            "agree": lambda: flower.masks_to_remove(recovered),
        },
        masked_bytes=sum(map(len, flower.collect(node_id, parameters))),
    )


def encode_and_mask(vector: NDArray[np.float32], seeds: list[tuple[bytes, int]]) -> Arrays:
    """Do the arithmetic of ``_collect_masked_vectors`` for one site: quantise, add every mask, reduce."""
    weighted = parameters_multiply([vector], 1.0)
    quantised = factor_combine(QUANTISATION_RANGE, quantize(weighted, CLIPPING_RANGE, QUANTISATION_RANGE))
    return parameters_mod(apply_masks(quantised, seeds), MODULUS)


def apply_masks(arrays: Arrays, seeds: list[tuple[bytes, int]]) -> Arrays:
    """Add or subtract the stream of each seed."""
    shapes = get_parameters_shape(arrays)
    for seed, sign in seeds:
        mask: Arrays = list(pseudo_rand_gen(seed, MODULUS, shapes))
        arrays = parameters_addition(arrays, mask) if sign > 0 else parameters_subtraction(arrays, mask)
    return arrays


def decode_arrays(masked: list[bytes]) -> Arrays:
    """Read the arrays of one masked vector, as the server does on receipt."""
    return [bytes_to_ndarray(part) for part in masked]


def unmask_and_decode(total: Arrays, seeds: list[tuple[bytes, int]], active: int) -> NDArray[np.float64]:
    """Do the arithmetic of ``unmask_stage``: remove the masks, reduce, dequantise, divide by the weights."""
    reduced = parameters_mod(apply_masks(parameters_mod(total, MODULUS), seeds), MODULUS)
    total_ratio, arrays = factor_extract(reduced)
    decoded = dequantize(arrays, CLIPPING_RANGE, QUANTISATION_RANGE)
    mean: NDArray[np.float64] = decoded[0]
    mean += -(active - 1) * CLIPPING_RANGE
    mean *= QUANTISATION_RANGE / total_ratio
    return mean
