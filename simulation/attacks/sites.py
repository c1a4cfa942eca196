"""A malicious hospital against an honest server: it signs what it likes with its own key, and keeps no rule.

What comes to its hands are packets of the server, in which no share of anybody is ever open; ``released_shares`` is
therefore 0 in every case here. The honest sites answer the honest server as they should.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from common.secagg.keys import sign
from common.secagg.messages import Masked, Packet, encode
from common.secagg.refusals import Check
from common.secagg.stages import SITE_SENDS, Kind
from common.secagg.statements import keys_statement, masked_statement, shares_statement, unmask_statement
from server.secagg.session import ServerSession
from simulation.attacks.arena import COLLUDER, OUTSIDER, ZEROS, Arena, Attack, facts_of, read
from simulation.attacks.lists import SERVER_KEY

_FRESH_KEY = bytes([7]) * 32


@dataclass(frozen=True, slots=True)
class BadSite:
    """The stage of an answer: the honest server, what every site would answer, and the bad site's own message."""

    arena: Arena
    server: ServerSession
    answers: Mapping[str, Packet]

    @property
    def own(self) -> Any:
        """What the bad site would say if it were honest."""
        return read(self.answers[COLLUDER], SITE_SENDS)

    def signed(self, message: Any) -> Packet:
        """Sign a changed message with the bad site's identity."""
        statements: dict[str, Callable[[], tuple[Any, ...]]] = {
            "Keys": lambda: keys_statement(message),
            "Shares": lambda: shares_statement(message),
            "Unmask": lambda: unmask_statement(message, facts_of(self.server).survivors_digest),
        }
        statement = statements[type(message).__name__]()
        identity = self.arena.federation.identities[COLLUDER]
        return Packet(encode(replace(message, signature=sign(identity, *statement))))

    def masked(self, vector: bytes) -> Packet:
        """Sign any bytes as the bad site's masked vector."""
        facts = facts_of(self.server)
        digest = hashlib.sha256(vector).digest()
        statement = masked_statement(facts.session_id, facts.dealers_digest, COLLUDER, digest)
        signature = sign(self.arena.federation.identities[COLLUDER], *statement)
        masked = Masked(session_id=facts.session_id, site_id=COLLUDER, vector_digest=digest, signature=signature)
        return Packet(encode(masked), memoryview(vector))


_Forge = Callable[[BadSite], Packet]


def _answers(kind: Kind, forge: _Forge) -> Callable[[Arena], None]:
    """All others answer honestly; the bad site answers last, with what it forged."""

    def play(arena: Arena) -> None:
        server, packets = arena.run_until(kind)
        answers = arena.answers_to(packets)
        for name in arena.honest:
            server.receive(answers[name].message, answers[name].payload)
        arena.hand_in(server, forge(BadSite(arena, server, answers)))

    return play


def _copied_key(bad: BadSite) -> Packet:
    other = read(bad.answers["site-001"], SITE_SENDS)
    return bad.signed(replace(bad.own, sealing_key=other.mask_key))


def _foreign_vector(bad: BadSite) -> Packet:
    """Another site's vector, digest and signature under the bad site's name: to count an update twice."""
    theirs = read(bad.answers["site-001"], SITE_SENDS)
    claimed = replace(bad.own, vector_digest=theirs.vector_digest, signature=theirs.signature)
    return Packet(encode(claimed), bad.answers["site-001"].payload)


def _other_bytes(bad: BadSite) -> Packet:
    honest = bad.answers[COLLUDER]
    return Packet(honest.message, memoryview(bytes(honest.payload.nbytes)))


def _share_beyond_field(bad: BadSite) -> Packet:
    first, *rest = bad.own.seed_shares
    return bad.signed(replace(bad.own, seed_shares=(replace(first, share=b"\xff" * 66), *rest)))


def _in_the_name_of(name: str) -> _Forge:
    return lambda bad: Packet(encode(replace(bad.own, site_id=name)))


def _join_from_outside(arena: Arena) -> None:
    """A hospital of the roster that was not asked sends keys for the round."""
    server, packets = arena.run_until(Kind.ORDER)
    keys = read(arena.answers_to(packets)["site-001"], SITE_SENDS)
    joined = replace(keys, site_id=OUTSIDER, sealing_key=SERVER_KEY, mask_key=_FRESH_KEY)
    signature = sign(arena.federation.identities[OUTSIDER], *keys_statement(joined))
    arena.hand_in(server, Packet(encode(replace(joined, signature=signature))))


def _second_vector(arena: Arena) -> None:
    """A second masked vector in one session, with other data, to be counted beside the first."""
    server, packets = arena.run_until(Kind.FORWARD)
    answers = arena.answers_to(packets)
    for answer in answers.values():
        server.receive(answer.message, answer.payload)
    payload = bytes(answers[COLLUDER].payload)
    arena.hand_in(server, BadSite(arena, server, answers).masked(payload[:-1] + bytes([payload[-1] ^ 1])))


def _late_keys(arena: Arena) -> None:
    """New keys when shares are awaited, genuinely signed."""
    server, packets = arena.run_until(Kind.ORDER)
    answers = arena.answers_to(packets)
    for answer in answers.values():
        server.receive(answer.message)
    server.advance()
    bad = BadSite(arena, server, answers)
    arena.hand_in(server, bad.signed(replace(bad.own, sealing_key=SERVER_KEY, mask_key=_FRESH_KEY)))


def _late_vector(arena: Arena) -> None:
    """A vector that comes when the list of survivors is out."""
    server, packets = arena.run_until(Kind.FORWARD)
    answers = arena.answers_to(packets)
    for name in arena.honest:
        server.receive(answers[name].message, answers[name].payload)
    server.advance()
    arena.hand_in(server, answers[COLLUDER])


def _deals_garbage(arena: Arena) -> None:
    """Well signed shares that no receiver can open: each of them names the dealer, and nothing goes on."""
    server, packets = arena.run_until(Kind.KEYLIST)
    answers = arena.answers_to(packets)
    bad = BadSite(arena, server, answers)
    garbage = bad.signed(replace(bad.own, sealed=tuple(replace(each, sealed=bytes(148)) for each in bad.own.sealed)))
    for answer in (*(answers[name] for name in arena.honest), garbage):
        server.receive(answer.message)
    forward = server.advance()
    for name in arena.honest:
        arena.offer(name, forward[name])


def _wrong_shares(field: str) -> Callable[[Arena], None]:
    """The bad site gives wrong shares where no share is to spare: one other site has dropped out."""

    def play(arena: Arena) -> None:
        server, packets = arena.run_until(Kind.FORWARD)
        arena.federation.deliver(server, packets, lost=frozenset({"site-001"}))
        arena.federation.deliver(server, server.advance())
        answers = arena.answers_to(server.advance())
        bad = BadSite(arena, server, answers)
        lies = tuple(replace(each, share=(7).to_bytes(66, "big")) for each in getattr(bad.own, field))
        lie = bad.signed(replace(bad.own, **{field: lies}))
        for answer in (answers["site-002"], answers["site-003"], answers["site-004"], lie):
            server.receive(answer.message)
        arena.close(server.finish)

    return play


def _garbage_vector(arena: Arena) -> None:
    """A well signed vector of zeros: the masks of the others do not cancel, and nobody can say whose fault it is."""
    server, packets = arena.run_until(Kind.FORWARD)
    answers = arena.answers_to(packets)
    garbage = BadSite(arena, server, answers).masked(bytes(answers[COLLUDER].payload.nbytes))
    for answer in (*(answers[name] for name in arena.honest), garbage):
        server.receive(answer.message, answer.payload)
    arena.federation.deliver(server, server.advance())
    arena.federation.deliver(server, server.advance())
    arena.close(server.finish)


_BAD_ANSWERS: list[tuple[str, Kind, Check, _Forge]] = [
    ("uses a key of another site", Kind.ORDER, Check.C_DISTINCT, _copied_key),
    (
        "uses a key of low order, so that all others refuse",
        Kind.ORDER,
        Check.C_LOW_ORDER,
        lambda bad: bad.signed(replace(bad.own, mask_key=ZEROS)),
    ),
    (
        "sends keys for another order",
        Kind.ORDER,
        Check.ANY_SESSION,
        lambda bad: bad.signed(replace(bad.own, order_digest=ZEROS)),
    ),
    ("answers in the name of another site", Kind.SURVIVORS, Check.C_ONCE, _in_the_name_of("site-001")),
    (
        "deals no shares to one site",
        Kind.KEYLIST,
        Check.C_RECEIVERS,
        lambda bad: bad.signed(replace(bad.own, sealed=bad.own.sealed[1:])),
    ),
    (
        "sends a short vector",
        Kind.FORWARD,
        Check.C_PAYLOAD,
        lambda bad: bad.masked(bytes(bad.answers[COLLUDER].payload[:-4])),
    ),
    ("sends other bytes than it signed", Kind.FORWARD, Check.C_DIGEST, _other_bytes),
    ("sends another site's vector as its own", Kind.FORWARD, Check.C_SIGNATURE, _foreign_vector),
    (
        "opens both shares of a survivor",
        Kind.CERTIFICATE,
        Check.C_UNMASK_SETS,
        lambda bad: bad.signed(replace(bad.own, key_shares=bad.own.seed_shares)),
    ),
    (
        "opens no shares at all",
        Kind.CERTIFICATE,
        Check.C_UNMASK_SETS,
        lambda bad: bad.signed(replace(bad.own, seed_shares=())),
    ),
    ("opens a share beyond the field", Kind.CERTIFICATE, Check.C_SHARE_RANGE, _share_beyond_field),
]

SITES = [
    *(Attack(f"site {name}", check, _answers(kind, forge)) for name, kind, check, forge in _BAD_ANSWERS),
    Attack("site outside the cohort joins a round", Check.C_SITE, _join_from_outside),
    Attack("site sends a second vector with other data", Check.C_ONCE, _second_vector),
    Attack("site changes its keys when shares are awaited", Check.C_STAGE, _late_keys),
    Attack("site sends its vector when the survivors are fixed", Check.C_SITE, _late_vector),
    Attack("site deals shares that nobody can open", Check.R2_OPENS, _deals_garbage),
    Attack("site gives wrong shares of a seed", Check.C_SEED, _wrong_shares("seed_shares")),
    Attack("site gives wrong shares of a dropout's mask key", Check.C_MASK_KEY, _wrong_shares("key_shares")),
    Attack("site sends a garbage vector", Check.C_SUM, _garbage_vector),
]
