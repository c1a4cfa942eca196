"""Answers that a site should not give: each is refused by its own check, the site is named, the others finish."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.secagg.keys import sign
from common.secagg.messages import Packet, Refusal, decode, encode
from common.secagg.refusals import Check, CheckSet, RoundAbortedError
from common.secagg.stages import SITE_SENDS, Kind, ServerStage
from common.secagg.statements import keys_statement, shares_statement, unmask_statement
from simulation.runtime.secagg_federation import Federation, new_federation

BAD = "site-002"
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


def _resigned(federation: Federation, name: str, kind: Kind, message: object, u3h: bytes = b"") -> bytes:
    """A site that signs whatever it likes with its own key."""
    statements = {
        Kind.KEYS: lambda: keys_statement(message),  # type: ignore[arg-type]
        Kind.SHARES: lambda: shares_statement(message),  # type: ignore[arg-type]
        Kind.UNMASK: lambda: unmask_statement(message, u3h),  # type: ignore[arg-type]
    }
    signature = sign(federation.identities[name], *statements[kind]())
    return encode(replace(message, signature=signature))  # type: ignore[type-var]


def _answers(federation: Federation, kind: Kind) -> tuple[object, dict[str, Packet]]:
    server, packets = federation.run_until(kind, federation.new_order())
    answers = {name: federation.sites[name].receive(packet.message, packet.payload) for name, packet in packets.items()}
    return server, answers


def _copied_key(federation, server, answers):
    other = decode(answers["site-001"].message, SITE_SENDS)[1]
    mine = decode(answers[BAD].message, SITE_SENDS)[1]
    return Packet(_resigned(federation, BAD, Kind.KEYS, replace(mine, sealing_key=other.mask_key)))


def _low_order_key(federation, server, answers):
    mine = decode(answers[BAD].message, SITE_SENDS)[1]
    return Packet(_resigned(federation, BAD, Kind.KEYS, replace(mine, mask_key=bytes(32))))


def _keys_of_another_order(federation, server, answers):
    mine = decode(answers[BAD].message, SITE_SENDS)[1]
    return Packet(_resigned(federation, BAD, Kind.KEYS, replace(mine, order_digest=bytes(32))))


def _unsigned_keys(federation, server, answers):
    mine = decode(answers[BAD].message, SITE_SENDS)[1]
    return Packet(encode(replace(mine, ledger_head=bytes(32))))


def _shares_for_too_few(federation, server, answers):
    mine = decode(answers[BAD].message, SITE_SENDS)[1]
    return Packet(_resigned(federation, BAD, Kind.SHARES, replace(mine, sealed=mine.sealed[1:])))


def _changed_shares(federation, server, answers):
    mine = decode(answers[BAD].message, SITE_SENDS)[1]
    sealed = (replace(mine.sealed[0], sealed=bytes(148)), *mine.sealed[1:])
    return Packet(encode(replace(mine, sealed=sealed)))


def _short_vector(federation, server, answers):
    return Packet(answers[BAD].message, answers[BAD].payload[:-4])


def _other_vector(federation, server, answers):
    changed = bytearray(answers[BAD].payload)
    changed[0] ^= 1
    return Packet(answers[BAD].message, memoryview(changed))


def _vector_of_another_site(federation, server, answers):
    mine = decode(answers[BAD].message, SITE_SENDS)[1]
    theirs = decode(answers["site-003"].message, SITE_SENDS)[1]
    return Packet(
        encode(replace(mine, vector_digest=theirs.vector_digest, signature=theirs.signature)),
        answers["site-003"].payload,
    )


def _consistency_of_another_site(federation, server, answers):
    theirs = decode(answers["site-003"].message, SITE_SENDS)[1]
    return Packet(encode(replace(theirs, site_id=BAD)))


def _share_beyond_the_field(federation, server, answers):
    mine = decode(answers[BAD].message, SITE_SENDS)[1]
    shares = (replace(mine.seed_shares[0], share=b"\xff" * 66), *mine.seed_shares[1:])
    u3h = server._facts.survivors_digest
    return Packet(_resigned(federation, BAD, Kind.UNMASK, replace(mine, seed_shares=shares), u3h))


def _both_shares(federation, server, answers):
    mine = decode(answers[BAD].message, SITE_SENDS)[1]
    u3h = server._facts.survivors_digest
    return Packet(_resigned(federation, BAD, Kind.UNMASK, replace(mine, key_shares=mine.seed_shares), u3h))


def _changed_share(federation, server, answers):
    mine = decode(answers[BAD].message, SITE_SENDS)[1]
    shares = (replace(mine.seed_shares[0], share=bytes(66)), *mine.seed_shares[1:])
    return Packet(encode(replace(mine, seed_shares=shares)))


def _stranger(federation, server, answers):
    mine = decode(answers[BAD].message, SITE_SENDS)[1]
    return Packet(encode(replace(mine, site_id="site-099")))


def _payload_beside_keys(federation, server, answers):
    return Packet(answers[BAD].message, memoryview(b"scans"))


def _server_message(federation, server, answers):
    return federation.sign_order(federation.order)


def _garbage(federation, server, answers):
    return Packet(b"\x93\x01\x02")


def _same_in_another_encoding(federation, server, answers):
    # the array of three announced with a 16-bit length instead of the short form
    return Packet(b"\xdc\x00\x03" + answers[BAD].message[1:])


def _enormous(federation, server, answers):
    return Packet(bytes(1 << 21))


def _other_protocol(federation, server, answers):
    return Packet(answers[BAD].message.replace(b"fedward-secagg/2", b"fedward-secagg/0"))


BAD_ANSWERS = {
    "a key that another site uses": (Kind.ORDER, _copied_key, Check.C_DISTINCT),
    "a key of low order": (Kind.ORDER, _low_order_key, Check.C_LOW_ORDER),
    "keys for another order": (Kind.ORDER, _keys_of_another_order, Check.ANY_SESSION),
    "keys whose signature does not fit": (Kind.ORDER, _unsigned_keys, Check.C_SIGNATURE),
    "an answer in the name of a stranger": (Kind.ORDER, _stranger, Check.C_SITE),
    "a buffer beside keys": (Kind.ORDER, _payload_beside_keys, Check.ANY_PAYLOAD),
    "a message that only the server sends": (Kind.ORDER, _server_message, Check.ANY_KIND),
    "bytes that are no message": (Kind.ORDER, _garbage, Check.WIRE_CANONICAL),
    "keys in another encoding of the same content": (Kind.ORDER, _same_in_another_encoding, Check.WIRE_CANONICAL),
    "two mebibytes": (Kind.ORDER, _enormous, Check.WIRE_SIZE),
    "another protocol": (Kind.ORDER, _other_protocol, Check.WIRE_VERSION),
    "shares for all but one": (Kind.KEYLIST, _shares_for_too_few, Check.C_RECEIVERS),
    "sealed shares changed after signing": (Kind.KEYLIST, _changed_shares, Check.C_SIGNATURE),
    "a vector that is too short": (Kind.FORWARD, _short_vector, Check.C_PAYLOAD),
    "a vector other than the one signed": (Kind.FORWARD, _other_vector, Check.C_DIGEST),
    "another site's vector": (Kind.FORWARD, _vector_of_another_site, Check.C_SIGNATURE),
    "another site's consistency": (Kind.SURVIVORS, _consistency_of_another_site, Check.C_SIGNATURE),
    "a share beyond the field": (Kind.CERTIFICATE, _share_beyond_the_field, Check.C_SHARE_RANGE),
    "both shares of a survivor": (Kind.CERTIFICATE, _both_shares, Check.C_UNMASK_SETS),
    "a share changed after signing": (Kind.CERTIFICATE, _changed_share, Check.C_SIGNATURE),
}


@pytest.mark.parametrize("sentence", BAD_ANSWERS)
def test_one_bad_answer_is_refused_by_its_own_check_and_the_others_finish(sentence: str, folder: Path) -> None:
    kind, forge, check = BAD_ANSWERS[sentence]
    federation = new_federation(5, folder)
    server, answers = _answers(federation, kind)
    forged = forge(federation, server, answers)
    answers = {name: answers[name] for name in sorted(answers, key=lambda name: name == BAD)} | {BAD: forged}
    for answer in answers.values():
        server.receive(answer.message, answer.payload)
    assert [receipt.check for receipt in server.rejected] == [check]
    while server.stage is not ServerStage.WAITING_FOR_UNMASK:
        federation.deliver(server, {name: packet for name, packet in server.advance().items() if name != BAD})
    opened = server.finish()
    assert opened.total.body_sum.tolist() == federation.expected_sum(opened.participants, 1)[1]
    assert (BAD in opened.participants) == (kind in IN_THE_SUM_ALL_THE_SAME)


# Bytes that are no text at all cannot be read with or without a check.
@pytest.mark.parametrize("sentence", sorted(set(BAD_ANSWERS) - {"bytes that are no message"}))
def test_without_its_check_a_bad_answer_meets_another_fate(sentence: str, folder: Path) -> None:
    kind, forge, check = BAD_ANSWERS[sentence]
    federation = new_federation(5, folder)
    server, answers = _answers(federation, kind)
    forged = forge(federation, server, answers)
    server._checks = CheckSet(without={check})
    for name, answer in answers.items():
        if name != BAD:
            server.receive(answer.message, answer.payload)
    unseen = server.receive(forged.message, forged.payload)
    assert unseen.check is not check


def test_a_second_or_late_answer_of_a_site_changes_nothing(folder: Path) -> None:
    federation = new_federation(4, folder)
    server, answers = _answers(federation, Kind.FORWARD)
    for name in ("site-001", "site-002", "site-003"):
        server.receive(answers[name].message, answers[name].payload)
    assert server.receive(answers[BAD].message, answers[BAD].payload).check is Check.C_ONCE
    packets = server.advance()
    late = server.receive(answers["site-004"].message, answers["site-004"].payload)
    assert late.check is Check.C_SITE  # it is no longer among those who may answer
    assert server.receive(answers["site-001"].message, answers["site-001"].payload).check is Check.C_STAGE
    for name in packets:
        federation.deliver(server, {name: packets[name]})
    federation.deliver(server, server.advance())
    opened = server.finish()
    assert opened.participants == ("site-001", "site-002", "site-003")
    assert opened.total.body_sum.tolist() == federation.expected_sum(opened.participants, 1)[1]


def test_a_site_that_refuses_is_waited_for_no_longer_and_its_reason_is_known(folder: Path) -> None:
    federation = new_federation(4, folder)
    server = federation.new_server(federation.new_order())
    federation.journals["site-003"].record_attempt(federation.order.plan_digest, 0, 50)
    federation.deliver(server, server.start())
    assert server.refusals["site-003"].check is Check.R0_ATTEMPT
    assert server.waiting_for == frozenset()
    again = federation.sign_order(replace(server._facts.order, nonce=bytes([7]) * 32))
    second = federation.sites["site-003"].receive(again.message, again.payload)
    assert server.receive(second.message).check is Check.C_ONCE


def test_a_forged_or_foreign_refusal_pushes_nobody_out(folder: Path) -> None:
    federation = new_federation(4, folder)
    server = federation.new_server(federation.new_order())
    forged = Refusal(reference=server._facts.order_digest, site_id="site-003", code=127, about="", signature=bytes(64))
    assert server.receive(encode(forged)).check is Check.C_SIGNATURE
    assert server.receive(encode(replace(forged, reference=bytes(32)))).check is Check.ANY_SESSION
    assert "site-003" in server.waiting_for


def test_a_busy_site_is_not_counted_out(folder: Path) -> None:
    federation = new_federation(4, folder)
    server = federation.new_server(federation.new_order())
    site = federation.sites["site-003"]
    with site._turn:
        busy = site.receive(server.start()["site-003"].message)
    assert decode(busy.message, SITE_SENDS)[1].check is Check.ANY_BUSY
    assert not server.receive(busy.message).is_taken
    assert "site-003" in server.waiting_for


def test_a_dealer_of_bad_shares_is_named_by_those_who_could_not_open_them(folder: Path) -> None:
    federation = new_federation(4, folder)
    server, answers = _answers(federation, Kind.KEYLIST)
    mine = decode(answers[BAD].message, SITE_SENDS)[1]
    garbage = tuple(replace(each, sealed=bytes(148)) for each in mine.sealed)
    answers[BAD] = Packet(_resigned(federation, BAD, Kind.SHARES, replace(mine, sealed=garbage)))
    for answer in answers.values():
        assert server.receive(answer.message).is_taken
    federation.deliver(server, server.advance())
    with pytest.raises(RoundAbortedError) as aborted:
        server.advance()
    assert aborted.value.suspects == (BAD,)


def test_wrong_shares_of_a_minority_are_overcome_and_named(folder: Path) -> None:
    federation = new_federation(10, folder)
    server, packets = federation.run_until(Kind.CERTIFICATE, federation.new_order())
    liars = {"site-001", "site-004", "site-005"}
    for name, packet in packets.items():
        answer = federation.sites[name].receive(packet.message)
        if name in liars:
            honest = decode(answer.message, SITE_SENDS)[1]
            lies = tuple(replace(each, share=(7).to_bytes(66, "big")) for each in honest.seed_shares)
            lie = replace(honest, seed_shares=lies)
            answer = Packet(_resigned(federation, name, Kind.UNMASK, lie, server._facts.survivors_digest))
        assert server.receive(answer.message).is_taken
    opened = server.finish()
    assert opened.total.body_sum.tolist() == federation.expected_sum(opened.participants, 1)[1]
    assert {wrong.holder for wrong in opened.wrong_shares} <= liars
    assert opened.wrong_shares


@pytest.mark.parametrize(("field", "check"), [("seed_shares", Check.C_SEED), ("key_shares", Check.C_MASK_KEY)])
def test_wrong_shares_without_a_spare_abort_and_name_the_dealer(field: str, check: Check, folder: Path) -> None:
    federation = new_federation(4, folder)
    server, packets = federation.run_until(Kind.FORWARD, federation.new_order())
    federation.deliver(server, packets, lost=frozenset({"site-004"}))
    federation.deliver(server, server.advance())
    for name, packet in server.advance().items():
        answer = federation.sites[name].receive(packet.message)
        if name == BAD:
            honest = decode(answer.message, SITE_SENDS)[1]
            shares = getattr(honest, field)
            lie = replace(honest, **{field: (replace(shares[0], share=bytes(66)), *shares[1:])})
            answer = Packet(_resigned(federation, BAD, Kind.UNMASK, lie, server._facts.survivors_digest))
        server.receive(answer.message)
    unchecked = CheckSet(without={check})
    with pytest.raises(RoundAbortedError) as aborted:
        server.finish()
    assert aborted.value.check is check
    assert len(aborted.value.suspects) == 1
    server._checks, server._stage = unchecked, ServerStage.WAITING_FOR_UNMASK
    with pytest.raises(RoundAbortedError) as unseen:
        server.finish()
    assert unseen.value.check is Check.C_SUM


def test_a_garbage_vector_is_noticed_in_the_sum_but_nobody_is_named(folder: Path) -> None:
    federation = new_federation(4, folder)
    order = federation.new_order()
    server, packets = federation.run_until(Kind.FORWARD, order)
    shared = federation.sites[BAD]._state
    peers = {name: replace(peer, pairwise_key=peer.pairwise_key[::-1]) for name, peer in shared.peers.items()}
    federation.sites[BAD]._state = replace(shared, peers=peers)
    federation.deliver(server, packets)
    federation.deliver(server, server.advance())
    federation.deliver(server, server.advance())
    with pytest.raises(RoundAbortedError) as aborted:
        server.finish()
    assert aborted.value.check is Check.C_SUM
    assert aborted.value.suspects == ()
