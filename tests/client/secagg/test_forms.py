"""What enters and leaves a site: nothing readable goes out, nothing malformed gets in, whatever bytes come."""

import random
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.secagg.state import Contribution
from common.secagg.messages import Packet, decode
from common.secagg.refusals import Check, CheckSet
from common.secagg.stages import SITE_SENDS, Kind, SiteStage
from simulation.runtime.secagg_federation import new_federation

NAME = "site-001"
KINDS = [Kind.ORDER, Kind.KEYLIST, Kind.FORWARD, Kind.SURVIVORS, Kind.CERTIFICATE]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for journals in memory where there is one: each journal is fsynced several times a round."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def refused_by(packet: Packet) -> Check | None:
    kind, message = decode(packet.message, SITE_SENDS)
    return message.check if kind is Kind.REFUSAL else None


def test_no_answer_of_a_round_holds_the_update_or_any_secret(folder: Path) -> None:
    federation = new_federation(4, folder, body_length=512)
    body = np.arange(1000, 1512, dtype=np.int32)
    federation.work[NAME].draw = lambda attempt: Contribution(np.full(3, 0xABCDEF0123456789, np.uint64), body)
    site, sent, kept = federation.sites[NAME], bytearray(), {}
    honest = site.receive

    def tapped(message: bytes, payload: bytes | memoryview = b"") -> Packet:
        answer = honest(message, payload)
        if site.stage is SiteStage.KEYED:
            secrets = site._state.secrets  # type: ignore[union-attr]
            kept.update({name: bytes(getattr(secrets, name)) for name in ("seed", "mask_secret", "sealing_secret")})
        sent.extend(answer.message + bytes(answer.payload))
        return answer

    site.receive = tapped  # type: ignore[method-assign, assignment]
    federation.run_round(federation.new_order())
    assert len(sent) > 512 * 4
    assert all(secret not in sent for secret in kept.values())
    assert not any(body[start : start + 2].tobytes() in sent for start in range(511))
    assert (0xABCDEF0123456789).to_bytes(8, "little") not in sent
    assert (0xABCDEF0123456789).to_bytes(8, "big") not in sent


FORMS = {
    "longer than a mebibyte": (bytes((1 << 20) + 1), b"", Check.WIRE_SIZE),
    "no text at all": (b"\xc1", b"", Check.WIRE_CANONICAL),
    "empty": (b"", b"", Check.WIRE_CANONICAL),
    "a number": (b"\x01", b"", Check.WIRE_FIELDS),
}


@pytest.mark.parametrize("sentence", FORMS)
def test_a_message_is_refused_that_is(sentence: str, folder: Path) -> None:
    message, payload, check = FORMS[sentence]
    federation = new_federation(3, folder)
    assert refused_by(federation.sites[NAME].receive(message, payload)) is check


CHANGED_FORMS = {
    "of another version": (lambda octets: octets.replace(b"secagg/2", b"secagg/1", 1), b"", Check.WIRE_VERSION),
    "of another kind": (lambda octets: octets.replace(b"\xa7keylist", b"\xa7masked2", 1), b"", Check.ANY_KIND),
    "of a kind that only sites send": (
        lambda octets: octets.replace(b"\xa7keylist", b"\xa6shares", 1),
        b"",
        Check.ANY_KIND,
    ),
    "encoded in another way": (lambda octets: b"\xdc\x00\x03" + octets[1:], b"", Check.WIRE_CANONICAL),
    "accompanied by a buffer": (lambda octets: octets, b"buffer", Check.ANY_PAYLOAD),
}


@pytest.mark.parametrize("sentence", CHANGED_FORMS)
def test_a_good_key_list_is_refused_when_it_is(sentence: str, folder: Path) -> None:
    change, payload, check = CHANGED_FORMS[sentence]
    for checks, is_refused_by_it in ((CheckSet(), True), (CheckSet(without={check}), False)):
        federation = new_federation(3, folder)
        federation.attempts = 0 if is_refused_by_it else 1
        federation.new_session(NAME, checks=checks)
        _, packets = federation.run_until(Kind.KEYLIST, federation.new_order())
        answer = federation.sites[NAME].receive(change(packets[NAME].message), payload)
        # an invented kind has no form to be read in, so that one is refused by name in any case
        assert (refused_by(answer) is check) == (is_refused_by_it or sentence == "of another kind")


def test_a_site_holds_one_more_vector_while_masking_and_the_server_none_while_adding(folder: Path) -> None:
    """A vector of 8 MiB: what each step takes at its peak, beyond the site's update and the server's accumulator."""
    federation = new_federation(3, folder, body_length=1 << 21)
    vector = Contribution(np.zeros(3, np.uint64), np.zeros(1 << 21, np.float32))
    for name in federation.names:
        federation.work[name].draw = lambda attempt: vector
    server, packets = federation.run_until(Kind.FORWARD, federation.new_order())
    tracemalloc.start()
    try:
        answer = federation.sites[NAME].receive(packets[NAME].message)
        assert tracemalloc.get_traced_memory()[1] < (8 << 20) + (2 << 20)
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        assert server.receive(answer.message, answer.payload).is_taken
        assert tracemalloc.get_traced_memory()[1] - held < 1 << 20
    finally:
        tracemalloc.stop()


# Fuzzing the sessions ------------------------------------------------------------------------------------------------


def mutated(octets: bytes, generator: random.Random) -> bytes:
    """Flip, cut, insert or repeat a few bytes."""
    changed = bytearray(octets)
    for _ in range(generator.randint(1, 3)):
        position = generator.randrange(len(changed))
        match generator.randrange(4):
            case 0:
                changed[position] ^= 1 << generator.randrange(8)
            case 1:
                del changed[position : position + generator.randint(1, 8)]
            case 2:
                changed[position:position] = generator.randbytes(generator.randint(1, 8))
            case _:
                changed[position:position] = bytes(changed[position : position + generator.randint(1, 64)])
    return bytes(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_site_answers_mutated_bytes_with_a_code_and_is_dead(kind: Kind, folder: Path) -> None:
    generator = random.Random(f"mutations of {kind}")
    federation = new_federation(3, folder)
    for _ in range(12):
        packet = federation.run_until(kind, federation.new_order())[1][NAME]
        site = federation.sites[NAME]
        state, stage = site._state, site._stage
        for _ in range(6):
            site._state, site._stage = state, stage
            changed = mutated(packet.message, generator)
            check = refused_by(site.receive(changed, packet.payload))
            assert check not in {None, Check.ANY_INTERNAL}, changed.hex()
            assert site.stage is SiteStage.DEAD


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_forgets_mutated_answers_and_finishes_with_the_good_ones(kind: Kind, folder: Path) -> None:
    generator = random.Random(f"mutated answers to {kind}")
    federation = new_federation(3, folder)
    order = federation.new_order()
    server, packets = federation.run_until(kind, order)
    for name, packet in packets.items():
        answer = federation.sites[name].receive(packet.message, packet.payload)
        for _ in range(25):
            receipt = server.receive(mutated(answer.message, generator), answer.payload)
            assert receipt.check not in {None, Check.ANY_INTERNAL}
        assert server.receive(answer.message, answer.payload).is_taken
    for _ in range(4 - KINDS.index(kind)):
        federation.deliver(server, server.advance())
    opened = server.finish()
    assert opened.total.body_sum.tolist() == federation.expected_sum(federation.names, order.attempt)[1]


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 20) + 1])
def test_random_bytes_of_any_length_get_a_code(length: int, folder: Path) -> None:
    federation = new_federation(3, folder)
    octets = random.Random(length).randbytes(length)
    assert refused_by(federation.sites[NAME].receive(octets)) not in {None, Check.ANY_INTERNAL}
    server = federation.new_server(federation.new_order())
    assert server.receive(octets).check not in {None, Check.ANY_INTERNAL}
