"""Attacks of a malicious server that run to their end: if the checks let them, the server reads a hospital's update.

Each goes on as far as the honest sites answer. Where a test switches off the one check that stops it, ``claim`` finds
the very numbers that the hospital contributed: the check is what protects them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from client.secagg.journal import SiteJournal
from client.secagg.rules import SecondAttempt
from client.secagg.state import MaskedState, SharedState
from common.secagg.accumulator import Accumulator
from common.secagg.keys import mask_sign, self_mask_key, sign
from common.secagg.messages import Certificate, Packet, Survivors, Unmask, Witness, encode
from common.secagg.order import Order
from common.secagg.refusals import Check
from common.secagg.sealed_shares import SharePair
from common.secagg.shamir import combine, secret_from_element, share_from_bytes, weights_at
from common.secagg.stages import SITE_SENDS, Kind
from common.secagg.statements import consistency_statement
from common.secagg.streams import Stream
from server.secagg.recovery import masks_to_remove
from server.secagg.session import ServerSession
from simulation.attacks.arena import (
    Arena,
    Attack,
    copy_disk,
    facts_of,
    memory_of,
    read,
    repeat_the_first_vector,
    scratch_folder,
)
from simulation.runtime.secagg_federation import MODEL, Federation, new_federation

VICTIM = "site-001"


def _rebuild(order: Order, shares: Mapping[str, bytes]) -> bytes:
    """Return a secret from shares by holder; raises ValueError where they are too few or do not fit."""
    holders = sorted(shares)[: order.threshold]
    elements = [share_from_bytes(shares[name]) for name in holders]
    weights = weights_at(0, [order.share_index(name) for name in holders])
    secret = secret_from_element(combine(weights, [element or 0 for element in elements]))
    if secret is None or len(holders) < order.threshold:
        raise ValueError("these shares rebuild no secret")
    return secret


def _open(order: Order, payloads: Iterable[memoryview], streams: list[Stream], participants: int) -> list[int]:
    accumulator = Accumulator(order.vector)
    for payload in payloads:
        accumulator.add(payload)
    accumulator.apply_streams(streams)
    return [int(value) for value in accumulator.finish(participants).body_sum]


# Puppets: the server plays all hospitals but one ---------------------------------------------------------------------


def _substitute_all_peers(arena: Arena) -> None:
    """Against one honest site, every other hospital is the server's own, with keys that it made itself."""
    order = arena.new_order()
    with scratch_folder() as folder:
        puppets = _puppets(arena, folder)
        server = ServerSession(
            order=order,
            order_key=arena.federation.order_key,
            identities={**puppets.public_keys, VICTIM: arena.federation.public_keys[VICTIM]},
            model=MODEL,
        )
        _play_puppets(arena, puppets, server)


def _puppets(arena: Arena, folder: Path) -> Federation:
    """Real sessions in the server's hands: the policies that everybody knows, identities of the server's own."""
    puppets = new_federation(6, folder)
    known = {**puppets.public_keys, VICTIM: arena.federation.public_keys[VICTIM]}
    for name, policy in arena.federation.policies.items():
        puppets.policies[name] = replace(policy, identities=known)
        puppets.new_session(name)
    return puppets


def _play_puppets(arena: Arena, puppets: Federation, server: ServerSession) -> None:
    packets = server.start()
    _answer_as_puppets(puppets, server, packets)
    server.receive(arena.tell(VICTIM, packets[VICTIM]).message)
    keylist = server.advance()
    _answer_as_puppets(puppets, server, keylist)
    shares = arena.offer(VICTIM, keylist[VICTIM])
    if shares is None:
        return
    server.receive(shares.message)
    forward = server.advance()
    streams = [_pairwise(puppets, name) for name in arena.cohort if name != VICTIM]
    _answer_as_puppets(puppets, server, forward)
    masked = arena.offer(VICTIM, forward[VICTIM])
    if masked is not None:
        order, sid = facts_of(server).order, facts_of(server).session_id
        seed = _rebuild(order, {name: _held(puppets, name).seed_share for name in arena.cohort if name != VICTIM})
        streams.append((self_mask_key(seed, sid, VICTIM), -1))
        arena.claim((VICTIM,), order.attempt, _open(order, [masked.payload], streams, 1))


def _answer_as_puppets(puppets: Federation, server: ServerSession, packets: Mapping[str, Packet]) -> None:
    puppets.deliver(server, packets, lost=frozenset({VICTIM}))


def _pairwise(puppets: Federation, name: str) -> Stream:
    state = memory_of(puppets, name)
    if not isinstance(state, SharedState):
        raise TypeError("a puppet has not dealt its shares yet")
    return state.peers[VICTIM].pairwise_key, -mask_sign(VICTIM, name)


def _held(puppets: Federation, name: str, dealer: str = VICTIM) -> SharePair:
    state = memory_of(puppets, name)
    if not isinstance(state, MaskedState):
        raise TypeError("a site in the server's hands has not opened its shares yet")
    return state.pairs[dealer]


# Split view: another list of survivors for each site -----------------------------------------------------------------

_ALONE = ("site-001", "site-002")
_RING = tuple(f"site-{number:03}" for number in range(3, 10))
_HELPER = "site-010"


def _survivors_shown_to(name: str) -> set[str]:
    """Who survived, as told to each of nine honest sites: each list is legal.

    Each of ``_RING`` is declared dead to five others, while ``_ALONE`` live for all. With the helper's that makes six
    shares of every secret needed.
    """
    everybody = {*_ALONE, *_RING, _HELPER}
    if name == _ALONE[0]:
        return everybody - set(_RING[:4])
    if name == _ALONE[1]:
        return everybody - set(_RING[4:])
    place = _RING.index(name)
    return everybody - {_RING[(place + step) % len(_RING)] for step in range(1, 5)}


def _split_view(arena: Arena) -> None:
    """Ten sites, t = 6: the server wants the sum over two, below the least number of survivors."""
    honest = (*_ALONE, *_RING)
    order = arena.new_order(cohort=arena.federation.names, threshold=6)
    server, forward = arena.run_until(Kind.FORWARD, order)
    helper = memory_of(arena.federation, _HELPER)
    helper_secret = bytes(helper.secrets.mask_secret)
    masked = arena.answers_to(forward)
    for answer in masked.values():
        server.receive(answer.message, answer.payload)
    survivors = read(server.advance()[VICTIM])
    signatures = _collect_consistency(arena, honest, survivors)
    opened = {name: _certify(arena, name, facts_of(server).session_id, signatures) for name in honest}
    answers = {name: read(answer, SITE_SENDS) for name, answer in opened.items() if answer is not None}
    if len(answers) < len(honest):
        return
    seeds = {v: _rebuild(order, _seed_shares(arena, answers, v)) for v in _ALONE}
    secrets = {v: _rebuild(order, _key_shares(arena, answers, v)) for v in _RING}
    streams = masks_to_remove(
        facts_of(server).session_id,
        seeds=seeds,
        dropped_secrets={**secrets, _HELPER: helper_secret},
        keys=facts_of(server).keys,
    )
    arena.claim(_ALONE, order.attempt, _open(order, [masked[v].payload for v in _ALONE], streams, 2))


def _collect_consistency(arena: Arena, honest: tuple[str, ...], survivors: Survivors) -> dict[str, bytes]:
    signatures = {}
    for name in honest:
        shown = tuple(each for each in survivors.survivors if each.site_id in _survivors_shown_to(name))
        answer = arena.tell(name, Packet(encode(replace(survivors, survivors=shown))))
        signatures[name] = read(answer, SITE_SENDS).signature
    return signatures


def _certify(arena: Arena, name: str, sid: bytes, signatures: Mapping[str, bytes]) -> Packet | None:
    """The colluding helper signs whatever list a site saw; the others signed their own."""
    u3h = memory_of(arena.federation, name).survivors_digest
    helper = sign(arena.federation.identities[_HELPER], *consistency_statement(sid, u3h, _HELPER))
    chosen = sorted(_survivors_shown_to(name), key=lambda v: v not in {name, _HELPER})[:6]
    known = {**signatures, _HELPER: helper}
    witnesses = tuple(Witness(site_id=v, signature=known[v]) for v in sorted(chosen))
    return arena.offer(name, Packet(encode(Certificate(session_id=sid, witnesses=witnesses))))


def _seed_shares(arena: Arena, answers: Mapping[str, Unmask], dealer: str) -> dict[str, bytes]:
    opened = {name: each.share for name, a in answers.items() for each in a.seed_shares if each.site_id == dealer}
    return {**opened, _HELPER: _held(arena.federation, _HELPER, dealer).seed_share}


def _key_shares(arena: Arena, answers: Mapping[str, Unmask], dealer: str) -> dict[str, bytes]:
    opened = {name: each.share for name, a in answers.items() for each in a.key_shares if each.site_id == dealer}
    return {**opened, _HELPER: _held(arena.federation, _HELPER, dealer).key_share}


# Differencing: two sums that differ by one site ----------------------------------------------------------------------


def _difference_of_two_sums(arena: Arena) -> None:
    """Updates without noise: the same model is ordered again from everybody but one, and the sums are subtracted."""
    for work in arena.federation.work.values():
        repeat_the_first_vector(work)
    with_victim = arena.open_honestly(arena.new_order())
    server = arena.federation.new_server(arena.new_order(cohort=arena.cohort[1:]))
    packets = server.start()
    for stage in range(5):
        asked = {name: arena.offer(name, packet) for name, packet in packets.items() if name in arena.honest}
        if None in asked.values():
            return
        for answer in asked.values():
            if answer is not None:
                server.receive(answer.message, answer.payload)
        arena.federation.deliver(server, packets, lost=frozenset(asked))
        packets = server.advance() if stage < 4 else {}
    without_victim = server.finish().total.body_sum
    difference = [whole - int(rest) for whole, rest in zip(with_victim, without_victim, strict=True)]
    arena.claim((VICTIM,), 1, difference)


# Late vectors and old states -----------------------------------------------------------------------------------------


def _dead_then_alive(arena: Arena) -> None:
    """A live site is declared dead, then its late vector is to be counted: the second list asks for the other share."""
    server, packets = arena.run_until(Kind.FORWARD)
    late = arena.federation.sites[VICTIM].receive(packets[VICTIM].message)
    arena.federation.deliver(server, packets, lost=frozenset({VICTIM}))
    survivors = server.advance()
    message = read(late, SITE_SENDS)
    entry = replace(
        read(survivors["site-002"]).survivors[0],
        site_id=VICTIM,
        vector_digest=message.vector_digest,
        signature=message.signature,
    )
    for name in arena.honest[1:]:
        without = read(survivors[name])
        arena.tell(name, survivors[name])
        with_late = replace(without, survivors=(entry, *without.survivors))
        arena.offer(name, Packet(encode(with_late)))


def _clone_of_a_machine(arena: Arena) -> None:
    """The disk of a hospital's machine is copied after an order came, and the copy gets the same order."""
    order = arena.new_order()
    arena.run_until(Kind.KEYLIST, order)
    with scratch_folder() as folder:
        for name in arena.honest:
            _boot_copy(arena, name, folder)
            arena.offer(name, arena.federation.sign_order(order))


def _restored_backup(arena: Arena) -> None:
    """A journal is restored from an older backup; staff skip the attempts that the coordinator knows of."""
    with scratch_folder() as folder:
        backups = {name: folder / f"{name}.sqlite" for name in arena.honest}
        for name, backup in backups.items():
            copy_disk(arena.federation, name, backup)
        order = arena.new_order()
        arena.run_until(Kind.KEYLIST, order)
        for name, backup in backups.items():
            arena.federation.journals[name] = SiteJournal(backup)
            arena.federation.journals[name].skip_to(order.plan_digest, order.attempt)
            arena.restart(name)
            arena.offer(name, arena.federation.sign_order(order))


def _boot_copy(arena: Arena, name: str, folder: Path) -> None:
    copied = folder / f"{name}.sqlite"
    copy_disk(arena.federation, name, copied)
    arena.federation.journals[name] = SiteJournal(copied)
    arena.restart(name)


WHOLE_ROUNDS = [
    Attack("server plays all hospitals but one, with keys of its own", Check.R1_SIGNATURES, _substitute_all_peers),
    Attack(
        "server shows nine sites nine lists of survivors, to open the sum over two",
        Check.R4_SIGNATURES,
        _split_view,
        sites=10,
    ),
    Attack(
        "server orders the same model again from all but one, to subtract",
        Check.R0_RELEASED,
        _difference_of_two_sums,
        phase={"second_attempt": SecondAttempt.NEVER},
    ),
    Attack("server declares a live site dead, then counts its late vector", Check.ANY_STAGE, _dead_then_alive),
    Attack("server gives the clone of a machine the same order", Check.R0_ATTEMPT, _clone_of_a_machine),
    Attack("server repeats an order to a site restored from a backup", Check.R0_ATTEMPT, _restored_backup),
]
