"""The site's session as a whole: one answer to each message, dead before work, secrets gone, nothing in clear."""

import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.secagg.session import SiteSession
from client.secagg.state import Contribution, IdleState
from common.secagg.messages import Packet, decode, encode
from common.secagg.refusals import Check, CheckSet
from common.secagg.stages import SITE_RECEIVES, SITE_SENDS, SITE_TRANSITIONS, Kind, SiteStage
from simulation.runtime.secagg_federation import NOW_S, Federation, new_federation

NAME = "site-001"
STAGES = {
    SiteStage.KEYED: Kind.KEYLIST,
    SiteStage.SHARED: Kind.FORWARD,
    SiteStage.MASKED: Kind.SURVIVORS,
    SiteStage.CONSISTENT: Kind.CERTIFICATE,
}
FIRST_STAGES = [SiteStage.IDLE, *STAGES, SiteStage.UNMASKED]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for journals in memory where there is one: each journal is fsynced several times a round."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def kind_and_check(packet: Packet) -> tuple[Kind, Check | None]:
    kind, message = decode(packet.message, SITE_SENDS)
    return kind, message.check if kind is Kind.REFUSAL else None


def refused_by(packet: Packet) -> Check | None:
    return kind_and_check(packet)[1]


def messages_of_a_round(federation: Federation) -> dict[Kind, Packet]:
    """What one site received in a whole honest round, by kind."""
    seen: dict[Kind, Packet] = {}
    site = federation.sites[NAME]
    honest = site.receive

    def overheard(message: bytes, payload: bytes | memoryview = b"") -> Packet:
        seen[decode(message, SITE_RECEIVES)[0]] = Packet(message, memoryview(payload))
        return honest(message, payload)

    site.receive = overheard  # type: ignore[method-assign, assignment]
    server, packets = federation.run_until(Kind.CERTIFICATE, federation.new_order())
    federation.deliver(server, packets)
    server.finish()
    federation.deliver(server, server.announce(model_digest=bytes(32), divisor=1.0))
    site.receive = honest  # type: ignore[method-assign]
    return seen


def at_stage(federation: Federation, stage: SiteStage) -> SiteSession:
    """A session that has honestly come to that stage."""
    if stage is SiteStage.UNMASKED:
        server, packets = federation.run_until(Kind.CERTIFICATE, federation.new_order())
        federation.deliver(server, packets)
    elif stage in STAGES:
        federation.run_until(STAGES[stage], federation.new_order())
    assert federation.sites[NAME].stage is stage
    return federation.sites[NAME]


# Turns ---------------------------------------------------------------------------------------------------------------

OUT_OF_TURN = [
    (stage, kind) for stage in FIRST_STAGES for kind in sorted(SITE_RECEIVES) if (stage, kind) not in SITE_TRANSITIONS
]


@pytest.mark.parametrize("without", [set(), {Check.ANY_STAGE}], ids=["checked", "unchecked"])
def test_a_message_out_of_turn_is_refused_in_every_stage_and_ends_the_session(
    without: set[Check], folder: Path
) -> None:
    federation = new_federation(3, folder)
    messages = messages_of_a_round(federation)
    for stage, kind in OUT_OF_TURN:
        federation.new_session(NAME, checks=CheckSet(without=without))
        site = at_stage(federation, stage)
        if site._last_message == messages[kind].message:
            continue
        answer = site.receive(messages[kind].message)
        assert refused_by(answer) is not None
        assert (refused_by(answer) is Check.ANY_STAGE) == (not without), (stage, kind)
        assert site.stage is SiteStage.DEAD
        assert isinstance(site._state, IdleState)


@pytest.mark.parametrize("stage", list(STAGES))
def test_the_same_bytes_again_get_the_same_answer_and_nothing_is_computed(stage: SiteStage, folder: Path) -> None:
    federation = new_federation(3, folder)
    federation.run_until(STAGES[stage], federation.new_order())
    site = federation.sites[NAME]
    events, answer = list(federation.work[NAME].events), site._last_answer
    again = site.receive(site._last_message)
    assert again is answer
    assert federation.work[NAME].events == events
    assert site.stage is stage


def test_shares_are_opened_once_even_for_another_valid_certificate(folder: Path) -> None:
    federation = new_federation(5, folder)
    server, packets = federation.run_until(Kind.CERTIFICATE, federation.new_order())
    site, certificate = federation.sites[NAME], packets[NAME]
    assert kind_and_check(site.receive(certificate.message))[0] is Kind.UNMASK
    parsed = decode(certificate.message, SITE_RECEIVES)[1]
    all_signed = [server._facts.consistent[v] for v in sorted(server._facts.consistent)]
    more = tuple(replace(parsed.witnesses[0], site_id=each.site_id, signature=each.signature) for each in all_signed)
    other = encode(replace(parsed, witnesses=more))
    assert other != certificate.message
    assert refused_by(site.receive(other)) is Check.ANY_STAGE


def test_a_new_order_wipes_the_old_session_and_its_messages_are_dead(folder: Path) -> None:
    federation = new_federation(4, folder)
    _, packets = federation.run_until(Kind.FORWARD, federation.new_order())
    site = federation.sites[NAME]
    secrets = site._state.secrets  # type: ignore[union-attr]
    second = federation.sign_order(federation.new_order())
    assert kind_and_check(site.receive(second.message, second.payload))[0] is Kind.KEYS
    assert bytes(secrets.seed) == bytes(secrets.mask_secret) == bytes(secrets.sealing_secret) == bytes(32)
    assert federation.work[NAME].events[-2:] == ["void 1", "reserved 2 for 15 bytes"]
    assert refused_by(site.receive(packets[NAME].message)) is Check.ANY_STAGE


def test_a_restarted_agent_is_a_dropout_and_takes_no_old_order(folder: Path) -> None:
    federation = new_federation(4, folder)
    _, packets = federation.run_until(Kind.FORWARD, federation.new_order())
    restarted = federation.new_session(NAME)
    assert refused_by(restarted.receive(packets[NAME].message)) is Check.ANY_STAGE
    old = federation.sign_order(replace(federation.order, attempt=1))
    assert refused_by(restarted.receive(old.message, old.payload)) is Check.R0_ATTEMPT


def test_a_second_message_during_training_is_refused_as_busy_and_training_goes_on(folder: Path) -> None:
    federation = new_federation(3, folder)
    site, packet = federation.sites[NAME], federation.sign_order(federation.new_order())
    answers: list[Packet] = []

    def train(attempt: int) -> Contribution:
        thread = threading.Thread(target=lambda: answers.append(site.receive(packet.message, packet.payload)))
        thread.start()
        thread.join()
        return Contribution(np.zeros(3, np.uint64), np.zeros(8, np.int32))

    federation.work[NAME].draw = train
    assert kind_and_check(site.receive(packet.message, packet.payload))[0] is Kind.KEYS
    assert refused_by(answers[0]) is Check.ANY_BUSY
    assert decode(answers[0].message, SITE_SENDS)[1].reference == bytes(32)


# Faults of one's own -------------------------------------------------------------------------------------------------


def test_the_text_of_an_exception_stays_at_the_site(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    federation = new_federation(3, folder)

    def fail(attempt: int) -> Contribution:
        raise OSError("/scans/patient-0815.dcm is unreadable")

    federation.work[NAME].draw = fail
    packet = federation.sign_order(federation.new_order())
    answer = federation.sites[NAME].receive(packet.message, packet.payload)
    assert refused_by(answer) is Check.R0_CONTRIBUTION
    assert b"0815" not in answer.message
    assert "0815" not in caplog.text
    assert "OSError" in caplog.text


def test_an_interrupt_leaves_a_dead_session_without_secrets(folder: Path) -> None:
    federation = new_federation(3, folder)
    _, packets = federation.run_until(Kind.FORWARD, federation.new_order())
    site = federation.sites[NAME]
    secrets = site._state.secrets  # type: ignore[union-attr]

    def interrupt(order: object) -> None:
        raise KeyboardInterrupt

    federation.work[NAME].spend = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        site.receive(packets[NAME].message)
    assert site.stage is SiteStage.DEAD
    assert bytes(secrets.seed) == bytes(32)


def test_no_vector_leaves_when_the_ledger_refuses(folder: Path) -> None:
    federation = new_federation(3, folder)
    _, packets = federation.run_until(Kind.FORWARD, federation.new_order())

    def refuse(order: object) -> None:
        raise RuntimeError("the budget is used up")

    federation.work[NAME].spend = refuse  # type: ignore[method-assign]
    answer = federation.sites[NAME].receive(packets[NAME].message)
    assert refused_by(answer) is Check.R2_SPEND
    assert answer.payload.nbytes == 0
    assert "void 1" not in federation.work[NAME].events


BAD_VECTORS = {
    "NaN": (np.full(8, np.nan, np.float32), Check.R2_ENCODING),
    "an integer off the lattice": (np.full(8, 2**31 - 1, np.int32), Check.R2_ENCODING),
    "a vector of another length": (np.zeros(9, np.float32), Check.R0_CONTRIBUTION),
    "no array": ([0.0] * 8, Check.R0_CONTRIBUTION),
}


@pytest.mark.parametrize("sentence", BAD_VECTORS)
def test_a_site_stops_at_its_own_bad_vector_and_the_reservation_is_not_voided(sentence: str, folder: Path) -> None:
    body, check = BAD_VECTORS[sentence]
    federation = new_federation(4, folder)
    federation.work[NAME].draw = lambda attempt: Contribution(np.zeros(3, np.uint64), body)  # type: ignore[arg-type]
    server, packets = federation.run_until(Kind.FORWARD, federation.new_order())
    federation.deliver(server, packets)
    assert server.refusals[NAME].check is check
    assert federation.work[NAME].events == ["reserved 1 for 15 bytes"]


def test_nothing_is_sent_when_the_journal_cannot_be_written(folder: Path) -> None:
    federation = new_federation(4, folder)
    _, packets = federation.run_until(Kind.CERTIFICATE, federation.new_order())

    def broken(*args: object) -> None:
        raise sqlite3.OperationalError("disk full")

    federation.journals[NAME].record_release = broken  # type: ignore[method-assign]
    answer = federation.sites[NAME].receive(packets[NAME].message)
    assert kind_and_check(answer) == (Kind.REFUSAL, Check.ANY_INTERNAL)


def test_a_ledger_that_fails_to_void_does_not_keep_a_session_alive(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    federation = new_federation(4, folder)
    federation.run_until(Kind.FORWARD, federation.new_order())

    def fail(order: object) -> None:
        raise OSError("patient-0815")

    federation.work[NAME].abandon = fail  # type: ignore[method-assign]
    federation.sites[NAME].wipe()
    assert federation.sites[NAME].stage is SiteStage.DEAD
    assert "it is spent" in caplog.text
    assert "0815" not in caplog.text


def test_a_ledger_head_of_another_length_sends_no_keys(folder: Path) -> None:
    federation = new_federation(3, folder)
    federation.work[NAME].ledger_head = lambda order: bytes(31)  # type: ignore[method-assign]
    packet = federation.sign_order(federation.new_order())
    assert refused_by(federation.sites[NAME].receive(packet.message, packet.payload)) is Check.ANY_INTERNAL


def test_the_release_is_journalled_before_the_shares_exist(folder: Path) -> None:
    federation = new_federation(4, folder)
    order = federation.new_order()
    _, packets = federation.run_until(Kind.CERTIFICATE, order)
    journal = federation.journals[NAME]
    assert journal.released_in(order.plan_digest, order.model_digest) == 0
    federation.sites[NAME].receive(packets[NAME].message)
    assert journal.released_in(order.plan_digest, order.model_digest) == order.attempt


def test_the_attempt_is_journalled_before_training_begins(folder: Path) -> None:
    federation = new_federation(4, folder)
    journal, seen = federation.journals[NAME], []
    draw = federation.work[NAME].draw
    federation.work[NAME].draw = lambda attempt: (
        seen.append(journal.last_attempt(federation.order.plan_digest)),
        draw(attempt),
    )[1]
    packet = federation.sign_order(federation.new_order(attempt=17))
    federation.sites[NAME].receive(packet.message, packet.payload)
    assert seen == [17]


# Time ----------------------------------------------------------------------------------------------------------------


def test_a_session_ends_at_its_deadline_whatever_comes(folder: Path) -> None:
    for checks, expected in ((CheckSet(), Check.ANY_DEADLINE), (CheckSet(without={Check.ANY_DEADLINE}), None)):
        now = [float(NOW_S)]
        federation = new_federation(4, folder)
        federation.attempts = 0 if expected else 5
        federation.new_session(NAME, checks=checks, clock=lambda now=now: now[0])
        _, packets = federation.run_until(Kind.FORWARD, federation.new_order())
        now[0] += 3600
        assert refused_by(federation.sites[NAME].receive(packets[NAME].message)) is expected


@pytest.mark.parametrize("first", ["the agent looks", "the same bytes come again"])
def test_after_the_deadline_a_session_is_wiped_when(first: str, folder: Path) -> None:
    now = [float(NOW_S)]
    federation = new_federation(4, folder)
    site = federation.new_session(NAME, clock=lambda: now[0])
    federation.run_until(Kind.FORWARD, federation.new_order())
    secrets, last = site._state.secrets, site._last_message  # type: ignore[union-attr]
    assert not site.expire()
    now[0] += 3601
    if first == "the agent looks":
        assert site.expire()
        assert not site.expire()
    else:
        assert refused_by(site.receive(last)) is not None
    assert site.stage is SiteStage.DEAD
    assert bytes(secrets.seed) == bytes(32)


def test_staff_can_wipe_a_session(folder: Path) -> None:
    federation = new_federation(4, folder)
    federation.run_until(Kind.FORWARD, federation.new_order())
    site = federation.sites[NAME]
    secrets = site._state.secrets  # type: ignore[union-attr]
    site.wipe()
    assert site.stage is SiteStage.DEAD
    assert bytes(secrets.mask_secret) == bytes(32)
    assert federation.work[NAME].events[-1] == "void 1"


def test_training_that_outlasts_the_deadline_sends_no_keys(folder: Path) -> None:
    now = [float(NOW_S)]
    federation = new_federation(4, folder)
    site, draw = federation.new_session(NAME, clock=lambda: now[0]), federation.work[NAME].draw

    def slow(attempt: int) -> Contribution:
        now[0] += 3600
        return draw(attempt)

    federation.work[NAME].draw = slow
    packet = federation.sign_order(federation.new_order())
    assert refused_by(site.receive(packet.message, packet.payload)) is Check.ANY_DEADLINE


def test_a_failure_after_training_is_told_at_a_multiple_of_the_slot_too(folder: Path) -> None:
    now = [float(NOW_S)]
    federation = new_federation(4, folder, reply_slot_s=30.0)
    site = federation.new_session(NAME, clock=lambda: now[0])

    def fail(attempt: int) -> Contribution:
        now[0] += 7.0
        raise MemoryError

    federation.work[NAME].draw = fail
    packet = federation.sign_order(federation.new_order())
    answer = site.receive(packet.message, packet.payload)
    assert refused_by(answer) is Check.R0_CONTRIBUTION
    assert answer.delay_s == pytest.approx(23.0)


@pytest.mark.parametrize(("training_s", "delay_s"), [(0.0, 0.0), (1.0, 29.0), (30.0, 0.0), (31.5, 28.5)])
def test_keys_leave_at_a_multiple_of_the_public_slot(training_s: float, delay_s: float, folder: Path) -> None:
    now = [float(NOW_S)]
    federation = new_federation(4, folder, reply_slot_s=30.0)
    site, draw = federation.new_session(NAME, clock=lambda: now[0]), federation.work[NAME].draw

    def train(attempt: int) -> Contribution:
        now[0] += training_s
        return draw(attempt)

    federation.work[NAME].draw = train
    packet = federation.sign_order(federation.new_order())
    assert site.receive(packet.message, packet.payload).delay_s == pytest.approx(delay_s)
