"""Somebody on the wire, or a server's process with other software: bytes that no honest party sent, to both halves.

The attacker reads and changes every packet, repeats old ones and holds others back; it has no key of anybody. (TLS
between site and server makes most of this harder; nothing here relies on it.)
"""

from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.secagg.encoding import PROTOCOL
from common.secagg.messages import Packet, Refusal, SealedShares, encode
from common.secagg.refusals import TABLE, Check
from common.secagg.stages import SITE_SENDS, Kind
from common.secagg.wire import pack, unpack
from server.secagg.session import ServerSession
from simulation.attacks.arena import ZEROS, Arena, Attack, facts_of, read

_STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_Bytes = Callable[[bytes], bytes]


def _other_bytes_to_sites(change: _Bytes) -> Callable[[Arena], None]:
    """Change the bytes of a good list of dealers, for each honest site."""

    def play(arena: Arena) -> None:
        _, packets = arena.run_until(Kind.FORWARD)
        for name in arena.honest:
            arena.offer(name, Packet(change(packets[name].message)))

    return play


def _other_bytes_to_server(change: _Bytes) -> Callable[[Arena], None]:
    """Change the bytes of a good answer."""

    def play(arena: Arena) -> None:
        server, packets = arena.run_until(Kind.KEYLIST)
        for answer in arena.answers_to(packets).values():
            arena.hand_in(server, Packet(change(answer.message)))

    return play


def _longer_length(octets: bytes) -> bytes:
    """The same content, the array of three announced with a 16-bit length."""
    return b"\xdc\x00\x03" + octets[1:]


def _unknown_field(octets: bytes) -> bytes:
    version, kind, fields = unpack(octets)
    return pack([version, kind, {**fields, "weights": b"in the clear"}])


_BYTES: list[tuple[str, Check, _Bytes]] = [
    ("sends a message padded to two mebibytes", Check.WIRE_SIZE, lambda octets: octets + bytes(1 << 21)),
    ("sends a second encoding of the same content", Check.WIRE_CANONICAL, _longer_length),
    ("appends a byte", Check.WIRE_CANONICAL, lambda octets: octets + b"\x00"),
    ("announces four thousand million list members", Check.WIRE_CANONICAL, lambda _: b"\xdd\xff\xff\xff\xff"),
    (
        "asks for an older protocol (downgrade)",
        Check.WIRE_VERSION,
        lambda octets: octets.replace(PROTOCOL.encode(), b"fedward-secagg/0"),
    ),
    ("adds an unknown field", Check.WIRE_FIELDS, _unknown_field),
]


def _queries(kind: str) -> Callable[[Arena], None]:
    """Ask sites for a plaintext by a kind that no site knows, or that only sites send."""

    def play(arena: Arena) -> None:
        _, packets = arena.run_until(Kind.CERTIFICATE)
        query = pack([PROTOCOL, kind, {}])
        if kind == Kind.UNMASK:
            query = arena.answers_to(packets)["site-001"].message
        for name in arena.honest:
            arena.offer(name, Packet(query))

    return play


def _server_kind_to_server(arena: Arena) -> None:
    server, packets = arena.run_until(Kind.KEYLIST)
    arena.hand_in(server, packets["site-001"])


def _ordered_by(key: Callable[[Arena], Ed25519PrivateKey]) -> Callable[[Arena], None]:
    def play(arena: Arena) -> None:
        packet = arena.federation.sign_order(arena.new_order(), key=key(arena))
        for name in arena.honest:
            arena.offer(name, packet)

    return play


def _changed_order(arena: Arena) -> None:
    packet = arena.federation.sign_order(arena.new_order(threshold=5))
    weaker = packet.message.replace(b"threshold\x05", b"threshold\x04")
    for name in arena.honest:
        arena.offer(name, Packet(weaker, packet.payload))


def _model_changed_on_the_wire(arena: Arena) -> None:
    packet = arena.federation.sign_order(arena.new_order(), model=b"initial weights"[::-1])
    for name in arena.honest:
        arena.offer(name, packet)


def _replay(old: Kind, at: Kind) -> Callable[[Arena], None]:
    """Repeat a packet of the round before, at a stage of this one."""

    def play(arena: Arena) -> None:
        _, earlier = arena.run_until(old)
        arena.run_until(at)
        for name in arena.honest:
            arena.offer(name, earlier[name])

    return play


def _after_a_refusal(arena: Arena) -> None:
    """First something bad, which ends the session, then the good packet that it would have taken."""
    _, packets = arena.run_until(Kind.KEYLIST)
    for name in arena.honest:
        arena.tell(name, Packet(b"\x00"))
        arena.offer(name, packets[name])


def _after_the_deadline(arena: Arena) -> None:
    _, packets = arena.run_until(Kind.FORWARD)
    arena.now_s += 3600
    for name in arena.honest:
        arena.offer(name, packets[name])


def _buffer_beside(arena: Arena) -> None:
    _, packets = arena.run_until(Kind.FORWARD)
    for name in arena.honest:
        arena.offer(name, Packet(packets[name].message, memoryview(b"code to run")))


def _buffer_beside_keys(arena: Arena) -> None:
    server, packets = arena.run_until(Kind.ORDER)
    for answer in arena.answers_to(packets).values():
        arena.hand_in(server, Packet(answer.message, memoryview(b"a scan")))


def _changed_answers(kind: Kind, **changes: object) -> Callable[[Arena], None]:
    """Change a field of every site's answer; the signatures no longer fit."""

    def play(arena: Arena) -> None:
        server, packets = arena.run_until(kind)
        for answer in arena.answers_to(packets).values():
            message = read(answer, SITE_SENDS)
            arena.hand_in(server, Packet(encode(replace(message, **changes)), answer.payload))

    return play


def _sealed_shares_changed(arena: Arena) -> None:
    server, packets = arena.run_until(Kind.KEYLIST)
    for answer in arena.answers_to(packets).values():
        message = read(answer, SITE_SENDS)
        sealed = tuple(SealedShares(site_id=each.site_id, sealed=bytes(148)) for each in message.sealed)
        arena.hand_in(server, Packet(encode(replace(message, sealed=sealed))))


def _shares_changed(arena: Arena) -> None:
    server, packets = arena.run_until(Kind.CERTIFICATE)
    for answer in arena.answers_to(packets).values():
        message = read(answer, SITE_SENDS)
        shares = tuple(replace(each, share=bytes(66)) for each in message.seed_shares)
        arena.hand_in(server, Packet(encode(replace(message, seed_shares=shares))))


def _keys_of_an_earlier_attempt(arena: Arena) -> None:
    _, packets = arena.run_until(Kind.ORDER)
    old = arena.answers_to(packets)
    server = arena.federation.new_server(arena.new_order(), checks=arena.checks)
    server.start()
    for answer in old.values():
        arena.hand_in(server, answer)


def _forged_refusal(reference: Callable[[ServerSession], bytes]) -> Callable[[Arena], None]:
    """Push an honest site out of the round with a refusal it never sent."""

    def play(arena: Arena) -> None:
        server, _ = arena.run_until(Kind.KEYLIST)
        for name in arena.honest:
            refusal = Refusal(
                reference=reference(server),
                site_id=name,
                code=TABLE[Check.R0_ATTEMPT].code,
                about="",
                signature=bytes(64),
            )
            arena.hand_in(server, Packet(encode(refusal)))

    return play


def _order_of(server: ServerSession) -> bytes:
    return facts_of(server).order_digest


def _held_back(kind: Kind, lost: int) -> Callable[[Arena], None]:
    """Hold back the answers of so many sites; what is left must not be opened."""

    def play(arena: Arena) -> None:
        server, packets = arena.run_until(kind)
        arena.federation.deliver(server, packets, lost=frozenset(arena.cohort[:lost]))
        arena.close(server.finish if kind is Kind.CERTIFICATE else server.advance)

    return play


NETWORK = [
    *(Attack(f"network {name}, to sites", check, _other_bytes_to_sites(change)) for name, check, change in _BYTES),
    *(
        Attack(f"network {name}, to the server", check, _other_bytes_to_server(change))
        for name, check, change in _BYTES
    ),
    Attack("network asks a site for its parameters", Check.ANY_KIND, _queries("get_parameters")),
    Attack("network gives sites what only sites send", Check.ANY_KIND, _queries(Kind.UNMASK)),
    Attack("network gives the server what only servers send", Check.ANY_KIND, _server_kind_to_server),
    Attack("stranger signs an order", Check.R0_SIGNATURE, _ordered_by(lambda _: _STRANGER)),
    Attack(
        "hospital signs an order in the coordinator's place",
        Check.R0_SIGNATURE,
        _ordered_by(lambda arena: arena.federation.identities["site-002"]),
    ),
    Attack("network lowers the threshold of a signed order", Check.R0_SIGNATURE, _changed_order),
    Attack("network changes the model beside an order", Check.R0_MODEL_DIGEST, _model_changed_on_the_wire),
    Attack("network repeats the dealers of the round before", Check.ANY_SESSION, _replay(Kind.FORWARD, Kind.FORWARD)),
    Attack(
        "network repeats the certificate of the round before",
        Check.ANY_SESSION,
        _replay(Kind.CERTIFICATE, Kind.CERTIFICATE),
    ),
    Attack(
        "network carries on an old session beside a new one", Check.ANY_STAGE, _replay(Kind.SURVIVORS, Kind.KEYLIST)
    ),
    Attack("network goes on after a refusal", Check.ANY_STAGE, _after_a_refusal),
    Attack("network delivers after the deadline", Check.ANY_DEADLINE, _after_the_deadline),
    Attack("network puts a buffer beside a message that has none", Check.ANY_PAYLOAD, _buffer_beside),
    Attack("network puts a buffer beside a site's keys", Check.ANY_PAYLOAD, _buffer_beside_keys),
    Attack(
        "network changes the ledger's anchor in keys",
        Check.C_SIGNATURE,
        _changed_answers(Kind.ORDER, ledger_head=ZEROS),
    ),
    Attack(
        "network changes a mask key on its way to the server",
        Check.C_SIGNATURE,
        _changed_answers(Kind.ORDER, mask_key=bytes([9]) * 32),
    ),
    *(
        Attack(
            f"network changes what keys say of the last result: {what}",
            Check.C_SIGNATURE,
            _changed_answers(Kind.ORDER, **changes),
        )
        for what, changes in (
            ("its attempt", {"last_attempt": 7}),
            ("its digest", {"last_result": bytes([9]) * 32}),
        )
    ),
    Attack("network changes sealed shares on their way to the server", Check.C_SIGNATURE, _sealed_shares_changed),
    Attack("network changes opened shares", Check.C_SIGNATURE, _shares_changed),
    Attack("network answers in the name of a stranger", Check.C_SITE, _changed_answers(Kind.ORDER, site_id="stranger")),
    Attack("network repeats keys of an earlier attempt", Check.ANY_SESSION, _keys_of_an_earlier_attempt),
    Attack("network forges a refusal", Check.C_SIGNATURE, _forged_refusal(_order_of)),
    Attack("network repeats a refusal of another session", Check.ANY_SESSION, _forged_refusal(lambda _: ZEROS)),
    Attack("network holds back keys until too few are left", Check.C_TOO_FEW, _held_back(Kind.ORDER, 2)),
    Attack("network holds back vectors until one is left", Check.C_TOO_FEW, _held_back(Kind.FORWARD, 4)),
    Attack("network holds back shares below the threshold", Check.C_TOO_FEW, _held_back(Kind.CERTIFICATE, 2)),
]
