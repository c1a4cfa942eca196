"""Whole rounds with the real halves: exact sums with dropouts at each stage, clean aborts, bad answers left out."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.secagg.state import Contribution
from common.networks.errors import WeightsInvalidError
from common.plan.errors import PlanWeakThresholdError
from common.secagg.messages import Result, decode
from common.secagg.refusals import Check, RoundAbortedError
from common.secagg.stages import SITE_RECEIVES, SITE_SENDS, Kind, ServerStage, SiteStage
from common.trust.errors import RosterInvalidError
from simulation.runtime.secagg_federation import Federation, new_federation

STAGES = [Kind.ORDER, Kind.KEYLIST, Kind.FORWARD, Kind.SURVIVORS, Kind.CERTIFICATE]
# A site that does not answer SURVIVORS or CERTIFICATE has sent its vector before: it is in the sum.
IN_THE_SUM_ALL_THE_SAME = {Kind.SURVIVORS, Kind.CERTIFICATE}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for journals in memory where there is one: each journal is fsynced several times a round."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def assert_exact(federation: Federation, silent_from: dict[str, Kind]) -> None:
    order = federation.new_order()
    opened = federation.run_round(order, silent_from=silent_from)
    out = {name for name, kind in silent_from.items() if kind not in IN_THE_SUM_ALL_THE_SAME}
    assert set(opened.participants) == set(federation.names) - out
    assert set(opened.dropped) == out
    meta, body = federation.expected_sum(opened.participants, order.attempt)
    assert opened.total.meta.tolist() == meta
    assert opened.total.body_sum.tolist() == body


@pytest.mark.parametrize("size", [3, 4, 5, 10, 30])
def test_the_sum_is_exact_when_nobody_drops_out(size: int, folder: Path) -> None:
    assert_exact(new_federation(size, folder), {})


@pytest.mark.parametrize("stage", STAGES)
def test_three_sites_without_colluders_tolerate_no_dropout_before_the_sum_is_fixed(stage: Kind, folder: Path) -> None:
    federation = new_federation(3, folder, colluders=0)
    assert_exact(federation, {})
    silent = {"site-003": stage}
    if stage is Kind.CERTIFICATE:  # all three are in the sum, and two shares open it
        assert_exact(federation, silent)
        return
    with pytest.raises(RoundAbortedError):
        federation.run_round(federation.new_order(), silent_from=silent)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", [4, 5, 10])
def test_the_sum_is_exact_when_one_site_drops_out_at_any_stage(size: int, stage: Kind, folder: Path) -> None:
    assert_exact(new_federation(size, folder), {"site-002": stage})


def test_the_sum_is_exact_when_four_of_ten_drop_out_at_different_stages(folder: Path) -> None:
    silent = dict(zip(["site-001", "site-004", "site-007", "site-010"], STAGES[:4], strict=True))
    assert_exact(new_federation(10, folder), silent)


def test_the_sum_is_exact_when_exactly_the_threshold_of_thirty_is_left(folder: Path) -> None:
    federation = new_federation(30, folder, colluders=3)
    assert federation.order.threshold == 17
    assert_exact(federation, {f"site-{number:03}": STAGES[number % 5] for number in range(1, 14)})


@pytest.mark.slow
def test_the_sum_is_exact_with_a_hundred_sites_and_a_third_colluding_or_gone(folder: Path) -> None:
    federation = new_federation(100, folder, colluders=33)
    assert_exact(federation, {f"site-{number:03}": STAGES[number % 5] for number in range(1, 34)})


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("size", "silent"), [(3, 1), (4, 2), (5, 2), (10, 5)], ids=str)
def test_a_round_below_the_threshold_aborts_and_nothing_is_opened(
    size: int, silent: int, stage: Kind, folder: Path
) -> None:
    federation = new_federation(size, folder)
    names = federation.names[-silent:]
    with pytest.raises(RoundAbortedError) as aborted:
        federation.run_round(federation.new_order(), silent_from=dict.fromkeys(names, stage))
    assert aborted.value.check is Check.C_TOO_FEW
    if stage is not Kind.CERTIFICATE:
        assert all(federation.sites[name].stage is not SiteStage.UNMASKED for name in federation.names)


def test_an_aborted_server_session_does_nothing_any_more(folder: Path) -> None:
    federation = new_federation(3, folder)
    server = federation.new_server(federation.new_order())
    with pytest.raises(RoundAbortedError):
        server.advance()
    assert server.stage is ServerStage.ABORTED
    with pytest.raises(RuntimeError):
        server.advance()
    with pytest.raises(RuntimeError):
        server.finish()


def test_rounds_follow_each_other_and_each_model_is_the_announced_one(folder: Path) -> None:
    federation = new_federation(4, folder)
    first = federation.new_order()
    server, packets = federation.run_until(Kind.CERTIFICATE, first)
    federation.deliver(server, packets)
    opened = server.finish()
    following = hashlib.sha256(b"next model").digest()
    federation.deliver(server, server.announce(model_digest=following, divisor=4.0))
    assert server.recorded == set(federation.names)
    assert {site.stage for site in federation.sites.values()} == {SiteStage.DONE}
    result = decode(server.transcript.entries[-5].message, SITE_RECEIVES)[1]
    assert isinstance(result, Result)
    assert result.sum_digest == opened.sum_digest
    # The same model again, as if round 2 began from it: every site was told another one.
    repeated = federation.sign_order(federation.new_order(round_number=2))
    answer = federation.sites["site-001"].receive(repeated.message, repeated.payload)
    refusal = decode(answer.message, SITE_SENDS)[1]
    assert refusal.check is Check.R0_RESULT


def test_the_transcript_holds_every_signed_message_and_no_vector(folder: Path) -> None:
    federation = new_federation(4, folder, body_length=4096)
    server, packets = federation.run_until(Kind.CERTIFICATE, federation.new_order())
    federation.deliver(server, packets)
    server.finish()
    kinds = [decode(entry.message, set(Kind))[0] for entry in server.transcript.entries]
    assert kinds == [Kind.ORDER] + [
        kind for kind in (Kind.KEYS, Kind.SHARES, Kind.MASKED, Kind.CONSISTENT, Kind.UNMASK) for _ in range(4)
    ]
    assert len(server.transcript.to_bytes()) < 16_384
    assert len(server.transcript.digest()) == 32


OWN_MISTAKES = {
    "a cohort with a stranger": ({"cohort": ("site-001", "site-002", "stranger")}, RosterInvalidError),
    "an unsorted cohort": ({"cohort": ("site-002", "site-001", "site-003")}, RosterInvalidError),
    "a cohort of two": ({"cohort": ("site-001", "site-002")}, PlanWeakThresholdError),
    "a threshold of one": ({"threshold": 1}, PlanWeakThresholdError),
    "a threshold above the cohort": ({"threshold": 5}, PlanWeakThresholdError),
    "sums over two": ({"minimum_survivors": 2}, PlanWeakThresholdError),
    "a vector made for fewer sites": ({"cohort_maximum": 3}, WeightsInvalidError),
    "a model of another size": ({"model_bytes": 5}, WeightsInvalidError),
}


@pytest.mark.parametrize("sentence", OWN_MISTAKES)
def test_the_server_does_not_even_send(sentence: str, folder: Path) -> None:
    changes, error = OWN_MISTAKES[sentence]
    federation = new_federation(4, folder)
    with pytest.raises(error):
        federation.new_server(federation.new_order(**changes))


def test_floats_are_summed_to_the_lattice_and_the_mean_is_close(folder: Path) -> None:
    federation = new_federation(4, folder, body_length=1000)
    generator = np.random.default_rng(5)
    updates = {name: generator.normal(size=1000).astype(np.float32) for name in federation.names}
    for name in federation.names:
        vector = Contribution(np.zeros(3, np.uint64), updates[name])
        federation.work[name].draw = lambda attempt, vector=vector: vector
    opened = federation.run_round(federation.new_order(), silent_from={"site-003": Kind.FORWARD})
    mean = np.mean([updates[name] for name in opened.participants], axis=0, dtype=np.float64)
    # half a step for each rounding, and the decoded mean is float32 (values up to 4)
    assert np.abs(opened.total.decode_mean() - mean).max() < opened.total.lattice.step + 2.0**-21
