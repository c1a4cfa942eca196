"""What is not stopped, measured: the numbers of ``docs/threat-model.md`` for poisoning and for collusion."""

import hashlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.secagg.state import Contribution
from common.privacy.accounting import SampledGaussian, epsilon, noise_multiplier_for
from common.secagg.keys import sign
from common.secagg.messages import Masked, encode
from common.secagg.refusals import Check, RoundAbortedError
from common.secagg.stages import Kind
from common.secagg.statements import masked_statement
from server.secagg.opening import OpenedSum
from simulation.runtime.secagg_federation import Federation, new_federation

POISONER = "site-005"
SITES = 5


@pytest.fixture
def federation() -> Iterator[Federation]:
    """Five hospitals whose honest updates are zero."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        made = new_federation(SITES, Path(folder))
        nothing = Contribution(np.zeros(3, np.uint64), np.zeros(8, np.int32))
        for work in made.work.values():
            work.draw = lambda _: nothing
        yield made


def poisoned_sum(federation: Federation, units: int) -> OpenedSum:
    """One site adds ``units`` of the lattice to its masked first coordinate, makes the checksum fit, and signs that."""
    order = federation.new_order()
    server, packets = federation.run_until(Kind.FORWARD, order)
    federation.deliver(server, packets, lost=frozenset({POISONER}))
    payload = np.frombuffer(federation.sites[POISONER].receive(packets[POISONER].message).payload, np.uint8).copy()
    meta, words = order.vector.views(payload)
    meta[1] += np.uint64(units)
    words[0] += np.uint32(units)
    facts, digest = server._facts, hashlib.sha256(payload.data).digest()
    statement = masked_statement(facts.session_id, facts.dealers_digest, POISONER, digest)
    signature = sign(federation.identities[POISONER], *statement)
    masked = Masked(session_id=facts.session_id, site_id=POISONER, vector_digest=digest, signature=signature)
    assert server.receive(encode(masked), payload.data).is_taken
    # An agent that knows nothing of the lie would refuse the forged list of survivors: the poisoner keeps quiet now.
    for _ in range(2):
        federation.deliver(server, server.advance(), lost=frozenset({POISONER}))
    return server.finish()


def test_one_site_can_move_the_mean_to_the_end_of_the_range(federation: Federation) -> None:
    limit = federation.order.vector.lattice.limit
    opened = poisoned_sum(federation, SITES * limit)
    assert POISONER in opened.participants
    assert opened.total.decode_mean()[0] == pytest.approx(federation.order.coordinate_range, rel=1e-6)
    assert np.all(opened.total.decode_mean()[1:] == 0)


def test_one_unit_beyond_that_voids_the_round_and_nobody_is_named(federation: Federation) -> None:
    limit = federation.order.vector.lattice.limit
    with pytest.raises(RoundAbortedError) as aborted:
        poisoned_sum(federation, SITES * limit + 1)
    assert aborted.value.check is Check.C_SUM
    assert aborted.value.suspects == ()


def test_all_but_one_together_know_the_update_of_the_last(federation: Federation) -> None:
    update = Contribution(np.zeros(3, np.uint64), np.arange(8, dtype=np.int32))
    federation.work["site-001"].draw = lambda _: update
    opened = federation.run_round(federation.new_order())
    _, others = federation.expected_sum(federation.names[1:], 1)
    assert (opened.total.body_sum - np.array(others)).tolist() == update.body.tolist()


def test_two_of_three_colluding_cost_what_the_threat_model_says() -> None:
    planned = noise_multiplier_for(epsilon=8.0, delta=1e-5, sampling_rate=0.2, steps=200)
    # sigma sqrt((s_min - r) / h), with s_min = 3, h = s_min - c = 2 and r = 2 shares known
    seen = SampledGaussian(sampling_rate=0.2, noise_multiplier=planned * math.sqrt(1 / 2), steps=200)
    assert epsilon([seen], 1e-5) == pytest.approx(13.3, abs=0.05)
