"""What a server has of one site looks like noise: a late vector without its pairwise masks, two sessions compared."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from client.secagg.rules import SecondAttempt
from client.secagg.state import Contribution
from common.secagg.keys import agree, mask_sign, open_secret, pairwise_mask_key, self_mask_key
from common.secagg.messages import Packet
from common.secagg.order import Order
from common.secagg.shamir import combine, secret_from_element, share_from_bytes, weights_at
from common.secagg.stages import Kind
from common.secagg.streams import Stream, add_segment
from server.secagg.facts import RoundFacts
from simulation.runtime.secagg_federation import Federation, new_federation

LATE = "site-001"
LENGTH = 1 << 16
CONSTANT = 1000
# 255 degrees of freedom: mean 255, standard deviation 22.6; beyond 380 lies less than one in a million.
CHI_SQUARE_LIMIT = 380


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for journals in memory where there is one: each journal is fsynced several times a round."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def chi_square_of_bytes(words: NDArray[np.uint32]) -> float:
    counts = np.bincount(np.ascontiguousarray(words).view(np.uint8), minlength=256)
    expected = words.nbytes / 256
    return float(((counts - expected) ** 2 / expected).sum())


def correlation(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    return float(np.corrcoef(one.astype(np.float64), other.astype(np.float64))[0, 1])


def body(order: Order, payload: memoryview, masks: list[Stream]) -> NDArray[np.uint32]:
    """The body of a masked vector, with these masks removed."""
    words = order.vector.views(np.frombuffer(payload, np.uint8))[1].astype(np.uint32)
    add_segment(words, masks, 0)
    return words


def rebuilt(order: Order, shares: dict[str, bytes]) -> bytes:
    holders = sorted(shares)[: order.threshold]
    elements = [share_from_bytes(shares[name]) for name in holders]
    weights = weights_at(0, [order.share_index(name) for name in holders])
    secret = secret_from_element(combine(weights, [element for element in elements if element is not None]))
    assert secret is not None
    return secret


def constant_hospitals(folder: Path) -> Federation:
    federation = new_federation(5, folder, body_length=LENGTH, second_attempt=SecondAttempt.STORED_UPDATE)
    vector = Contribution(np.zeros(3, np.uint64), np.full(LENGTH, CONSTANT, np.int32))
    for work in federation.work.values():
        work.draw = lambda _: vector
    return federation


def late_round(federation: Federation) -> tuple[RoundFacts, Packet, bytes]:
    """One site is declared dead and its vector comes late: all that the server has then, and the site's own seed."""
    server, packets = federation.run_until(Kind.FORWARD, federation.new_order())
    seed = bytes(federation.sites[LATE]._state.secrets.seed)  # type: ignore[union-attr]
    late = federation.sites[LATE].receive(packets[LATE].message)
    federation.deliver(server, packets, lost=frozenset({LATE}))
    federation.deliver(server, server.advance())
    federation.deliver(server, server.advance())
    assert server.finish().dropped == (LATE,)
    return server._facts, late, seed


def pairwise_masks(facts: RoundFacts) -> list[Stream]:
    """What the server may know of a dropout: its mask key, from the others' shares, and so all its pairwise masks."""
    shares = {name: each.share for name, unmask in facts.unmask.items() for each in unmask.key_shares}
    secret = open_secret(rebuilt(facts.order, shares))
    masks = []
    for name in sorted(set(facts.keys) - {LATE}):
        shared = agree(secret, facts.keys[name].mask_key)
        assert shared is not None
        masks.append((pairwise_mask_key(shared, facts.session_id, LATE, name), -mask_sign(LATE, name)))
    return masks


def test_a_late_vector_without_its_pairwise_masks_is_still_uniform(folder: Path) -> None:
    facts, late, seed = late_round(constant_hospitals(folder))
    pairwise = pairwise_masks(facts)
    assert chi_square_of_bytes(body(facts.order, late.payload, pairwise)) < CHI_SQUARE_LIMIT
    # and these were the right masks: with the seed, which no share tells, the constant would stand there
    own = (self_mask_key(seed, facts.session_id, LATE), -1)
    assert set(body(facts.order, late.payload, [*pairwise, own])) == {CONSTANT}


def test_no_share_of_a_dropouts_seed_is_opened(folder: Path) -> None:
    facts, _, _ = late_round(constant_hospitals(folder))
    opened = [each.site_id for unmask in facts.unmask.values() for each in unmask.seed_shares]
    assert LATE not in opened
    assert len(opened) == 4 * 4


def test_a_late_vector_says_nothing_about_the_update(folder: Path) -> None:
    federation = constant_hospitals(folder)
    update = np.random.default_rng(4).integers(-(10**6), 10**6, LENGTH, dtype=np.int32)
    federation.work[LATE].draw = lambda _: Contribution(np.zeros(3, np.uint64), update)
    facts, late, _ = late_round(federation)
    seen = body(facts.order, late.payload, pairwise_masks(facts))
    assert abs(correlation(seen, update.view(np.uint32))) < 5 / math.sqrt(LENGTH)


def test_masked_vectors_of_two_sessions_with_one_update_and_one_identity_are_unrelated(folder: Path) -> None:
    federation = constant_hospitals(folder)
    seen = []
    for _ in range(2):
        order = federation.new_order()
        _, packets = federation.run_until(Kind.FORWARD, order)
        seen.append(body(order, federation.sites[LATE].receive(packets[LATE].message).payload, []))
    first, second = seen
    assert chi_square_of_bytes(first) < CHI_SQUARE_LIMIT
    assert chi_square_of_bytes(first - second) < CHI_SQUARE_LIMIT
    assert abs(correlation(first, second)) < 5 / math.sqrt(LENGTH)


def test_the_measure_sees_what_is_not_uniform() -> None:
    noise = np.random.default_rng(5).integers(0, 2**32, LENGTH, dtype=np.uint32)
    assert chi_square_of_bytes(noise) < CHI_SQUARE_LIMIT
    assert chi_square_of_bytes(np.full(LENGTH, CONSTANT, np.uint32)) > 10 * CHI_SQUARE_LIMIT
    assert chi_square_of_bytes(noise & np.uint32(0xFFFFFF7F)) > CHI_SQUARE_LIMIT
