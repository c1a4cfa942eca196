"""A malicious server's lists of survivors, certificates and results (R3 to R5): who is in the sum, and who saw that."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from common.secagg.keys import sign
from common.secagg.messages import Certificate, Packet, Result, Survivor, Witness, encode
from common.secagg.refusals import Check
from common.secagg.stages import Kind
from common.secagg.statements import consistency_statement, masked_statement, result_statement
from simulation.attacks.arena import COLLUDER, OUTSIDER, ZEROS, Arena, Attack, facts_of, read
from simulation.attacks.lists import Forge, Target, change_list, forged

_Survivors = tuple[Survivor, ...]
_Witnesses = tuple[Witness, ...]


def _forged_digest(target: Target, survivors: _Survivors) -> _Survivors:
    return tuple(replace(each, vector_digest=ZEROS) if each.site_id == target.peer else each for each in survivors)


def _coordinator_vouches(target: Target, survivors: _Survivors) -> _Survivors:
    sid, u2h = facts_of(target.server).session_id, facts_of(target.server).dealers_digest
    statement = masked_statement(sid, u2h, target.peer, ZEROS)
    signature = sign(target.arena.federation.order_key, *statement)
    forged_one = Survivor(site_id=target.peer, vector_digest=ZEROS, signature=signature)
    return tuple(forged_one if each.site_id == target.peer else each for each in survivors)


def _vector_of_old_session(target: Target, survivors: _Survivors) -> _Survivors:
    """The colluder signs for a vector of another session: genuine, and of no use here."""
    signature = sign(target.colluder_identity, *masked_statement(ZEROS, ZEROS, COLLUDER, ZEROS))
    old = Survivor(site_id=COLLUDER, vector_digest=ZEROS, signature=signature)
    return tuple(old if each.site_id == COLLUDER else each for each in survivors)


def _survivor_without_shares(target: Target, survivors: _Survivors) -> _Survivors:
    sid, u2h = facts_of(target.server).session_id, facts_of(target.server).dealers_digest
    signature = sign(target.arena.federation.identities[OUTSIDER], *masked_statement(sid, u2h, OUTSIDER, ZEROS))
    return (*survivors, Survivor(site_id=OUTSIDER, vector_digest=ZEROS, signature=signature))


def _keep(count: int) -> Callable[[Target, tuple[Any, ...]], tuple[Any, ...]]:
    """Keep the target and ``count`` - 1 others."""

    def change(target: Target, each: tuple[Any, ...]) -> tuple[Any, ...]:
        others = [one.site_id for one in each if one.site_id != target.name][: count - 1]
        return tuple(one for one in each if one.site_id in {target.name, *others})

    return change


def _other_than_target(target: Target, each: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one for one in each if one.site_id != target.name)


SURVIVORS: list[tuple[str, Check, Forge]] = [
    ("counts one survivor twice", Check.R3_SORTED, change_list("survivors", lambda _, s: (s[0], *s))),
    (
        "tells a site that it did not survive, to open its late vector",
        Check.R3_SELF,
        change_list("survivors", _other_than_target),
    ),
    ("counts a survivor that dealt no shares", Check.R3_SUBSET, change_list("survivors", _survivor_without_shares)),
    ("opens a sum over three where four are needed", Check.R3_SIZE, change_list("survivors", _keep(3))),
    ("opens a sum over one site alone", Check.R3_SIZE, change_list("survivors", _keep(1))),
    ("claims a vector that a site never sent", Check.R3_SIGNATURES, change_list("survivors", _forged_digest)),
    ("signs for a site's vector itself", Check.R3_SIGNATURES, change_list("survivors", _coordinator_vouches)),
    (
        "uses a colluder's vector of another session",
        Check.R3_SIGNATURES,
        change_list("survivors", _vector_of_old_session),
    ),
    ("names survivors of another session", Check.ANY_SESSION, lambda _, m: replace(m, session_id=ZEROS)),
]


def _foreign_witness(target: Target, witnesses: _Witnesses) -> _Witnesses:
    facts = facts_of(target.server)
    statement = consistency_statement(facts.session_id, facts.survivors_digest, OUTSIDER)
    signature = sign(target.arena.federation.identities[OUTSIDER], *statement)
    return (*witnesses, Witness(site_id=OUTSIDER, signature=signature))


def _coordinator_witnesses(target: Target, certificate: Certificate) -> Certificate:
    facts, key = facts_of(target.server), target.arena.federation.order_key

    def witness(name: str) -> Witness:
        return Witness(
            site_id=name,
            signature=sign(key, *consistency_statement(facts.session_id, facts.survivors_digest, name)),
        )

    return replace(certificate, witnesses=tuple(witness(each.site_id) for each in certificate.witnesses))


def _colluder_saw_others(target: Target, certificate: Certificate) -> Certificate:
    """A genuine signature of the colluder, on another list, beside three good ones."""
    signature = sign(target.colluder_identity, *consistency_statement(certificate.session_id, ZEROS, COLLUDER))
    return replace(certificate, witnesses=(*certificate.witnesses[:3], Witness(site_id=COLLUDER, signature=signature)))


CERTIFICATES: list[tuple[str, Check, Forge]] = [
    ("counts one witness twice", Check.R4_SORTED, change_list("witnesses", lambda _, w: (w[0], *w[:3]))),
    ("counts a witness that did not survive", Check.R4_MEMBERS, change_list("witnesses", _foreign_witness)),
    ("unmasks without any witness", Check.R4_SIZE, lambda _, certificate: replace(certificate, witnesses=())),
    ("unmasks with three witnesses where four are needed", Check.R4_SIZE, change_list("witnesses", lambda _, w: w[:3])),
    ("makes the witnesses' signatures itself", Check.R4_SIGNATURES, _coordinator_witnesses),
    ("lets a colluder witness another list", Check.R4_SIGNATURES, _colluder_saw_others),
    ("sends a certificate of another session", Check.ANY_SESSION, lambda _, m: replace(m, session_id=ZEROS)),
]


def _unmask_early(arena: Arena) -> None:
    """The certificate of an earlier round, to sites that have just sent their vectors: no consistency round at all."""
    _, early = arena.run_until(Kind.CERTIFICATE)
    arena.run_until(Kind.SURVIVORS)
    for name in arena.honest:
        arena.offer(name, early[name])


def _unmask_twice(arena: Arena) -> None:
    """A second valid certificate, with other witnesses, after the shares were opened."""
    server, packets = arena.run_until(Kind.CERTIFICATE)
    arena.federation.deliver(server, packets)
    signed = facts_of(server).consistent
    witnesses = tuple(Witness(site_id=name, signature=signed[name].signature) for name in sorted(signed))
    other = encode(replace(read(packets["site-001"]), witnesses=witnesses))
    for name in arena.honest:
        arena.offer(name, Packet(other))


def _result(forge: Callable[[Arena, Result], Result]) -> Callable[[Arena], None]:
    def play(arena: Arena) -> None:
        server, packets = arena.run_until(Kind.CERTIFICATE)
        arena.federation.deliver(server, packets)
        server.finish()
        result = read(server.announce(model_digest=ZEROS, divisor=5.0)["site-001"])
        for name in arena.honest:
            arena.offer(name, Packet(encode(forge(arena, result))))

    return play


def _resigned(arena: Arena, result: Result, **changes: Any) -> Result:
    changed = replace(result, **changes)
    return replace(changed, signature=sign(arena.federation.order_key, *result_statement(changed)))


UNMASKING = [
    *(Attack(f"server {name}", check, forged(Kind.SURVIVORS, forge)) for name, check, forge in SURVIVORS),
    *(Attack(f"server {name}", check, forged(Kind.CERTIFICATE, forge)) for name, check, forge in CERTIFICATES),
    Attack("server unmasks before the consistency round", Check.ANY_STAGE, _unmask_early),
    Attack("server asks for shares a second time", Check.ANY_STAGE, _unmask_twice),
    Attack(
        "network changes the result after it was signed",
        Check.R5_SIGNATURE,
        _result(lambda _, result: replace(result, divisor=2.0)),
    ),
    Attack(
        "server announces a result for other survivors",
        Check.R5_SURVIVORS,
        _result(lambda arena, result: _resigned(arena, result, survivors_digest=ZEROS)),
    ),
]
