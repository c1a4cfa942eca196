"""Different results for different hospitals, and hospitals that claim so: a fork shows when its halves meet."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from common.secagg.keys import sign
from common.secagg.messages import Keys, Packet, Result, encode
from common.secagg.refusals import Check
from common.secagg.stages import SITE_SENDS, Kind
from common.secagg.statements import keys_statement, result_statement
from server.secagg.session import ServerSession
from simulation.attacks.arena import COLLUDER, ZEROS, Arena, Attack, facts_of, read

_NEW_MODEL = bytes([9]) * 32
_OTHER: dict[str, dict[str, Any]] = {
    "another model": {"model_digest": bytes([8]) * 32},
    "another sum": {"sum_digest": bytes([8]) * 32},
    "another divisor": {"divisor": 2.0},
}
_TOLD = {"one hospital": 1, "half of the hospitals": 2, "all but one": 3}


def _announced(arena: Arena, model: bytes = _NEW_MODEL) -> tuple[ServerSession, dict[str, Packet]]:
    """Play a whole honest attempt and return the server with its RESULT for each site."""
    server, packets = arena.run_until(Kind.CERTIFICATE)
    arena.federation.deliver(server, packets)
    server.finish()
    return server, server.announce(model_digest=model, divisor=1.0)


def _forged(arena: Arena, packet: Packet, changes: dict[str, Any]) -> Packet:
    result: Result = replace(read(packet), **changes)
    return Packet(encode(replace(result, signature=sign(arena.federation.order_key, *result_statement(result)))))


def _fork(changes: dict[str, Any], told: int) -> Callable[[Arena], None]:
    """Some hospitals are told something else, well signed; then all of them are asked together."""

    def play(arena: Arena) -> None:
        _, results = _announced(arena)
        for place, name in enumerate(arena.honest):
            packet = results[name]
            arena.tell(name, _forged(arena, packet, changes) if place < told else packet)
        _, keylists = arena.run_until(Kind.KEYLIST)
        for name in arena.honest:
            arena.offer(name, keylists[name])

    return play


def _hidden(hide: Callable[[Keys, Keys], Keys]) -> Callable[[Arena], None]:
    """Half of the hospitals are told another model; in what each half is shown, ``hide(theirs, own)`` covers it up."""

    def play(arena: Arena) -> None:
        _, results = _announced(arena)
        half = arena.honest[:2]
        for name in arena.honest:
            packet = results[name]
            arena.tell(name, _forged(arena, packet, _OTHER["another model"]) if name in half else packet)
        _, keylists = arena.run_until(Kind.KEYLIST)
        for name in arena.honest:
            keylist = read(keylists[name])
            own = next(keys for keys in keylist.entries if keys.site_id == name)
            entries = tuple(keys if keys is own else hide(keys, own) for keys in keylist.entries)
            arena.offer(name, Packet(encode(replace(keylist, entries=entries))))

    return play


def _goes_on_from(told: int) -> Callable[[Arena], None]:
    """Some hospitals are told another model; the next order, to them too, trains the one that the rest know."""

    def play(arena: Arena) -> None:
        _, results = _announced(arena, arena.federation.order.model_digest)
        for place, name in enumerate(arena.honest):
            packet = results[name]
            arena.tell(name, _forged(arena, packet, _OTHER["another model"]) if place < told else packet)
        order = arena.new_order(round_number=2)
        for name in arena.honest[:told]:
            arena.offer(name, arena.federation.sign_order(order))

    return play


def _claim(changes: dict[str, Any]) -> Callable[[Arena], None]:
    """A hospital claims in its KEYS that it was told something else, so that all the others refuse."""

    def play(arena: Arena) -> None:
        first, results = _announced(arena)
        arena.federation.deliver(first, results)
        told = {facts_of(first).order.attempt: first.announced_digest}
        server, packets = arena.run_until(Kind.ORDER, announced=told)
        keys = replace(read(arena.answers_to(packets)[COLLUDER], SITE_SENDS), **changes)
        signature = sign(arena.federation.identities[COLLUDER], *keys_statement(keys))
        arena.hand_in(server, Packet(encode(replace(keys, signature=signature))))

    return play


def _replayed(taken: tuple[str, ...]) -> Callable[[Arena], None]:
    """In a second attempt the RESULT of the first is told again, with ``taken`` of its fields from the second."""

    def play(arena: Arena) -> None:
        _, old = _announced(arena, arena.federation.order.model_digest)
        for name in arena.honest:
            arena.tell(name, old[name])
        server, packets = arena.run_until(Kind.CERTIFICATE, arena.new_order(round_number=2))
        arena.federation.deliver(server, packets)
        server.finish()
        new = server.announce(model_digest=_NEW_MODEL, divisor=1.0)
        for name in arena.honest:
            fresh: Result = read(new[name])
            result: Result = replace(read(old[name]), **{field: getattr(fresh, field) for field in taken})
            arena.offer(name, Packet(encode(result)))

    return play


_HIDES: dict[str, Callable[[Keys, Keys], Keys]] = {
    "rewrites what the others say they were told": lambda keys, own: replace(keys, last_result=own.last_result),
    "makes the others say they were told nothing": lambda keys, _: replace(keys, last_attempt=0, last_result=ZEROS),
    "makes the others speak of an attempt that nobody knows": lambda keys, _: replace(keys, last_attempt=99),
}
TWO_TRUTHS = [
    *(
        Attack(f"server tells {whom} {what}, then lets all meet", Check.R1_RESULTS, _fork(changes, told))
        for what, changes in _OTHER.items()
        for whom, told in _TOLD.items()
    ),
    *(
        Attack(f"server forks the model and {does}", Check.R1_SIGNATURES, _hidden(hide))
        for does, hide in _HIDES.items()
    ),
    *(
        Attack(f"server tells {whom} another model and goes on from the first", Check.R0_RESULT, _goes_on_from(told))
        for whom, told in _TOLD.items()
    ),
    Attack("server tells the result of an earlier attempt again", Check.ANY_SESSION, _replayed(())),
    Attack("server tells it again under the new session's name", Check.R5_SIGNATURE, _replayed(("session_id",))),
    Attack(
        "server puts the new session and signature to the old model",
        Check.R5_SIGNATURE,
        _replayed(("session_id", "survivors_digest", "signature")),
    ),
    Attack("site claims that it was told no model at all", Check.C_RESULT, _claim({"last_result": ZEROS})),
    Attack("site claims that it was told another model", Check.C_RESULT, _claim({"last_result": _NEW_MODEL})),
]
