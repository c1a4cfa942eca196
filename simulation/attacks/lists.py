"""A malicious server's lists of keys and of dealers (R1, R2), given to every honest site, each its own forgery.

A colluding hospital (``COLLUDER``) lends the server its identity key and the secrets of its session.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.secagg.keys import agree, open_secret, sealing_key, sign
from common.secagg.messages import Forward, Keylist, Keys, Packet, SealedShares, encode
from common.secagg.refusals import Check
from common.secagg.sealed_shares import SharePair, seal
from common.secagg.stages import SITE_SENDS, Kind
from common.secagg.statements import keys_statement
from server.secagg.session import ServerSession
from simulation.attacks.arena import COLLUDER, OUTSIDER, ZEROS, Arena, Attack, facts_of, memory_of, read

# A key of the server's own: the public half of the secret 00 01 .. 1f.
SERVER_KEY = open_secret(bytes(range(32))).public_key().public_bytes_raw()


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a forgery is for, and what the server knows: its own session and everybody's packets."""

    arena: Arena
    server: ServerSession
    name: str

    @property
    def colluder_identity(self) -> Ed25519PrivateKey:
        """The signing key that a colluding hospital lends."""
        return self.arena.federation.identities[COLLUDER]

    @property
    def peer(self) -> str:
        """An honest site other than the target."""
        return next(name for name in self.arena.honest if name != self.name)


Forge = Callable[[Target, Any], Any]


def forged(kind: Kind, forge: Forge) -> Callable[[Arena], None]:
    """Play honestly up to ``kind``, then give every honest site a forged message of that kind."""

    def play(arena: Arena) -> None:
        server, packets = arena.run_until(kind)
        for name in arena.honest:
            message = forge(Target(arena, server, name), read(packets[name]))
            arena.offer(name, Packet(encode(message)))

    return play


def change_list(field: str, change: Callable[[Target, tuple[Any, ...]], tuple[Any, ...]]) -> Forge:
    """Return a forgery that changes one list of a message."""
    return lambda target, message: replace(message, **{field: change(target, getattr(message, field))})


def _keys_of(name_of: Callable[[Target], str], change: Callable[[Target, Keys], Keys]) -> Forge:
    """Return a forgery of the entry of one site in a key list."""

    def forge(target: Target, keylist: Keylist) -> Keylist:
        chosen = name_of(target)
        return replace(
            keylist,
            entries=tuple(change(target, keys) if keys.site_id == chosen else keys for keys in keylist.entries),
        )

    return forge


def _colluder_signs(**changes: Any) -> Callable[[Target, Keys], Keys]:
    return lambda target, keys: _signed(target.colluder_identity, replace(keys, **changes))


def _signed(identity: Ed25519PrivateKey, keys: Keys) -> Keys:
    return replace(keys, signature=sign(identity, *keys_statement(keys)))


def _mirror(target: Target, keylist: Keylist) -> Keylist:
    mirrored = next(keys.mask_key for keys in keylist.entries if keys.site_id == target.peer)
    return _keys_of(lambda _: COLLUDER, _colluder_signs(mask_key=mirrored))(target, keylist)  # type: ignore[no-any-return]


def _outsider_joins(target: Target, entries: tuple[Keys, ...]) -> tuple[Keys, ...]:
    identity = target.arena.federation.identities[OUTSIDER]
    joined = replace(entries[0], site_id=OUTSIDER, sealing_key=SERVER_KEY, mask_key=bytes([8]) * 32)
    return (*entries, _signed(identity, joined))


def _only_two_others(target: Target, entries: tuple[Keys, ...]) -> tuple[Keys, ...]:
    others = [keys.site_id for keys in entries if keys.site_id != target.name][:2]
    return tuple(keys for keys in entries if keys.site_id in {target.name, *others})


def _without(name_of: Callable[[Target], str]) -> Callable[[Target, tuple[Any, ...]], tuple[Any, ...]]:
    return lambda target, each: tuple(one for one in each if one.site_id != name_of(target))


def _target(target: Target) -> str:
    return target.name


def _peer(target: Target) -> str:
    return target.peer


def _coordinator_signs(target: Target, keys: Keys) -> Keys:
    return _signed(target.arena.federation.order_key, replace(keys, mask_key=SERVER_KEY))


KEYLISTS: list[tuple[str, Check, Forge]] = [
    ("sorts the key list otherwise", Check.R1_SORTED, change_list("entries", lambda _, e: e[::-1])),
    ("lists one site's keys twice", Check.R1_SORTED, change_list("entries", lambda _, e: (e[0], *e))),
    ("adds a site outside the cohort to the key list", Check.R1_COHORT, change_list("entries", _outsider_joins)),
    ("shows a site the keys of two others only", Check.R1_SIZE, change_list("entries", _only_two_others)),
    ("leaves a site's own keys out of its list", Check.R1_OWN, change_list("entries", _without(_target))),
    (
        "alters a site's own keys in its list",
        Check.R1_OWN,
        _keys_of(_target, lambda _, keys: replace(keys, mask_key=SERVER_KEY)),
    ),
    (
        "uses a colluder's keys of another order",
        Check.R1_ORDER,
        _keys_of(lambda _: COLLUDER, _colluder_signs(order_digest=ZEROS)),
    ),
    (
        "puts its own mask key in the place of a peer's",
        Check.R1_SIGNATURES,
        _keys_of(_peer, lambda _, keys: replace(keys, mask_key=SERVER_KEY)),
    ),
    (
        "puts its own sealing key in the place of a peer's",
        Check.R1_SIGNATURES,
        _keys_of(_peer, lambda _, keys: replace(keys, sealing_key=SERVER_KEY)),
    ),
    (
        "hides in a peer's keys which result it was told",
        Check.R1_SIGNATURES,
        _keys_of(_peer, lambda _, keys: replace(keys, last_attempt=7, last_result=ZEROS[1:] + b"1")),
    ),
    ("signs a peer's keys with the coordinator's key", Check.R1_SIGNATURES, _keys_of(_peer, _coordinator_signs)),
    (
        "signs a peer's keys with a colluder's key",
        Check.R1_SIGNATURES,
        _keys_of(_peer, _colluder_signs(mask_key=SERVER_KEY)),
    ),
    ("lets a colluder mirror another site's mask key", Check.R1_DISTINCT, _mirror),
    (
        "lets a colluder use a key of low order",
        Check.R1_LOW_ORDER,
        _keys_of(lambda _: COLLUDER, _colluder_signs(mask_key=ZEROS)),
    ),
    ("sends keys for another order", Check.ANY_SESSION, lambda _, keylist: replace(keylist, order_digest=ZEROS)),
]


def _dealers(change: Callable[[Target, tuple[str, ...]], tuple[str, ...]]) -> Forge:
    """Return a forgery of the list of dealers, with the sealed shares of those it keeps."""

    def forge(target: Target, forward: Any) -> Any:
        names = change(target, forward.dealers)
        return replace(forward, dealers=names, sealed=tuple(each for each in forward.sealed if each.site_id in names))

    return forge


def _swap(_: Target, sealed: tuple[SealedShares, ...]) -> tuple[SealedShares, ...]:
    first, second, *rest = sealed
    return (replace(first, sealed=second.sealed), replace(second, sealed=first.sealed), *rest)


def _flip(_: Target, sealed: tuple[SealedShares, ...]) -> tuple[SealedShares, ...]:
    first, *rest = sealed
    return (replace(first, sealed=bytes([first.sealed[0] ^ 1]) + first.sealed[1:]), *rest)


def _share_out_of_field(target: Target, forward: Any) -> Any:
    """The colluder seals, with the keys of its own session, a share that no honest dealer could deal."""
    secret = open_secret(memory_of(target.arena.federation, COLLUDER).secrets.sealing_secret)
    shared = agree(secret, facts_of(target.server).keys[target.name].sealing_key)
    if shared is None:
        raise TypeError("an honest site has no key of low order")
    text = seal(
        sealing_key(shared, forward.session_id, COLLUDER, target.name),
        SharePair(b"\xff" * 66, bytes(66)),
        session_id=forward.session_id,
        dealer=COLLUDER,
        receiver=target.name,
    )
    sealed = tuple(replace(each, sealed=text) if each.site_id == COLLUDER else each for each in forward.sealed)
    return replace(forward, sealed=sealed)


FORWARDS: list[tuple[str, Check, Forge]] = [
    (
        "sorts the dealers otherwise",
        Check.R2_SORTED,
        lambda _, m: replace(m, dealers=m.dealers[::-1], sealed=m.sealed[::-1]),
    ),
    ("leaves a site out of its own dealers", Check.R2_SELF, _dealers(lambda t, d: tuple(v for v in d if v != t.name))),
    ("invents a dealer that sent no keys", Check.R2_SUBSET, change_list("dealers", lambda _, d: (*d, OUTSIDER))),
    (
        "names three dealers where four are needed",
        Check.R2_SIZE,
        _dealers(lambda t, d: tuple(sorted({t.name, *[v for v in d if v != t.name][:2]}))),
    ),
    ("holds one dealer's shares back", Check.R2_CIPHERTEXTS, change_list("sealed", lambda _, s: s[1:])),
    ("forwards one dealer's shares twice", Check.R2_CIPHERTEXTS, change_list("sealed", lambda _, s: (s[0], *s))),
    ("swaps sealed shares between dealers", Check.R2_OPENS, change_list("sealed", _swap)),
    ("flips a bit of sealed shares", Check.R2_OPENS, change_list("sealed", _flip)),
    ("lets a colluder deal a share outside the field", Check.R2_SHARE_RANGE, _share_out_of_field),
    ("forwards shares under another session", Check.ANY_SESSION, lambda _, m: replace(m, session_id=ZEROS)),
]


def _different_key_lists(arena: Arena) -> None:
    """The target is shown a list without one site; its session differs, so what others dealt does not open."""
    _, packets = arena.run_until(Kind.KEYLIST)
    keylist = read(packets["site-001"])
    shorter = replace(keylist, entries=keylist.entries[:4])
    arena.tell("site-001", Packet(encode(shorter)))
    target_session = memory_of(arena.federation, "site-001").session_id
    others = arena.answers_to({name: packets[name] for name in arena.honest[1:]})
    sealed = tuple(
        next(replace(each, site_id=name) for each in message.sealed if each.site_id == "site-001")
        for name, message in ((name, read(answer, SITE_SENDS)) for name, answer in others.items())
    )
    forward = Forward(session_id=target_session, dealers=arena.honest, sealed=sealed)
    arena.offer("site-001", Packet(encode(forward)))


LISTS = [
    *(Attack(f"server {name}", check, forged(Kind.KEYLIST, forge)) for name, check, forge in KEYLISTS),
    *(Attack(f"server {name}", check, forged(Kind.FORWARD, forge)) for name, check, forge in FORWARDS),
    Attack("server shows two sites different key lists", Check.R2_OPENS, _different_key_lists),
]
