"""A coordinator that cheats: honest code, whose messages are changed on their way to the sites.

It has everything a hacked coordinator has: the order key, every message, the order in which they go out. What it wants
is one hospital's update. Each lie below is one way to get it; each must end in refusals, and no site may open a share.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message

from common.flower.messages import MESSAGE_TYPES, from_content, to_content
from common.secagg.keys import sign
from common.secagg.messages import (
    Certificate,
    Forward,
    Keylist,
    Packet,
    Result,
    SignedOrder,
    Survivors,
    decode,
    encode,
)
from common.secagg.order import decode_order, encode_order
from common.secagg.stages import Kind
from common.secagg.statements import order_statement, result_statement
from simulation.errors import ScenarioInvalidError
from simulation.runtime.loopback import LoopbackGrid

MAX_PAYLOAD_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Cheat:
    """Who cheats: the order key it holds, the site it is after, and the sites in order."""

    order_key: Ed25519PrivateKey
    victim: str
    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lie:
    """One way to cheat: which message is changed, and how. ``change(cheat, receiver, packet)`` returns another."""

    kind: Kind
    what: str
    change: Callable[[Cheat, str, Packet], Packet]


def _order(changes: Callable[[Any], dict[str, Any]]) -> Callable[[Cheat, str, Packet], Packet]:
    """Return a lie in the ORDER, signed with the real order key."""

    def change(cheat: Cheat, receiver: str, packet: Packet) -> Packet:
        del receiver
        order = decode_order(_message(packet, Kind.ORDER, SignedOrder).order)
        octets = encode_order(replace(order, **changes(order)))
        signature = sign(cheat.order_key, *order_statement(octets))
        return Packet(encode(SignedOrder(order=octets, signature=signature)), packet.payload)

    return change


def _other_key(cheat: Cheat, receiver: str, packet: Packet) -> Packet:
    del cheat, receiver
    order = _message(packet, Kind.ORDER, SignedOrder)
    signature = sign(Ed25519PrivateKey.generate(), *order_statement(order.order))
    return Packet(encode(replace(order, signature=signature)), packet.payload)


def _other_model(cheat: Cheat, receiver: str, packet: Packet) -> Packet:
    del cheat, receiver
    return Packet(packet.message, memoryview(b"\x01" * packet.payload.nbytes))


def _own_sealing_key(cheat: Cheat, receiver: str, packet: Packet) -> Packet:
    """Put a key of ours where the victim's is, so that shares for the victim could be read."""
    del receiver
    keylist = _message(packet, Kind.KEYLIST, Keylist)
    ours = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    entries = tuple(
        replace(keys, sealing_key=ours) if keys.site_id == cheat.victim else keys for keys in keylist.entries
    )
    return Packet(encode(replace(keylist, entries=entries)))


def _two_dealer_lists(cheat: Cheat, receiver: str, packet: Packet) -> Packet:
    """Tell half of the sites that the victim dealt no shares."""
    forward = _message(packet, Kind.FORWARD, Forward)
    if not _is_deceived(cheat, receiver):
        return packet
    dealers = tuple(name for name in forward.dealers if name != cheat.victim)
    sealed = tuple(each for each in forward.sealed if each.site_id != cheat.victim)
    return Packet(encode(replace(forward, dealers=dealers, sealed=sealed)))


def _two_survivor_lists(cheat: Cheat, receiver: str, packet: Packet) -> Packet:
    """Tell half of the sites that the victim dropped out: together their shares would show its update."""
    survivors = _message(packet, Kind.SURVIVORS, Survivors)
    if not _is_deceived(cheat, receiver):
        return packet
    kept = tuple(each for each in survivors.survivors if each.site_id != cheat.victim)
    return Packet(encode(replace(survivors, survivors=kept)))


def _victim_alone(cheat: Cheat, receiver: str, packet: Packet) -> Packet:
    """Say that only the victim's vector has come, so that the sum is its update."""
    del receiver
    survivors = _message(packet, Kind.SURVIVORS, Survivors)
    return Packet(
        encode(
            replace(survivors, survivors=tuple(each for each in survivors.survivors if each.site_id == cheat.victim))
        )
    )


def _short_certificate(cheat: Cheat, receiver: str, packet: Packet) -> Packet:
    """Ask for shares although hardly anybody signed the list."""
    del cheat, receiver
    certificate = _message(packet, Kind.CERTIFICATE, Certificate)
    return Packet(encode(replace(certificate, witnesses=certificate.witnesses[:1])))


def _other_result(cheat: Cheat, receiver: str, packet: Packet) -> Packet:
    """Announce another model than the sum leads to; with the real order key."""
    del receiver
    told = replace(_message(packet, Kind.RESULT, Result), model_digest=bytes(range(32)))
    return Packet(encode(replace(told, signature=sign(cheat.order_key, *result_statement(told)))))


LIES: Mapping[str, Lie] = {
    "lower_threshold": Lie(Kind.ORDER, "two shares shall be enough", _order(lambda _: {"threshold": 2})),
    "small_sum": Lie(Kind.ORDER, "two updates shall be a sum", _order(lambda _: {"minimum_survivors": 2})),
    "other_plan": Lie(Kind.ORDER, "a plan nobody approved", _order(lambda _: {"plan_digest": bytes(32)})),
    "small_cohort": Lie(Kind.ORDER, "two sites only", _order(lambda order: {"cohort": order.cohort[:2]})),
    "other_key": Lie(Kind.ORDER, "an order signed by a stranger", _other_key),
    "other_model": Lie(Kind.ORDER, "another model than the order names", _other_model),
    "own_sealing_key": Lie(Kind.KEYLIST, "a key of its own in the list", _own_sealing_key),
    "two_dealer_lists": Lie(Kind.FORWARD, "two lists of dealers", _two_dealer_lists),
    "two_survivor_lists": Lie(Kind.SURVIVORS, "two lists of survivors", _two_survivor_lists),
    "victim_alone": Lie(Kind.SURVIVORS, "a sum of one", _victim_alone),
    "short_certificate": Lie(Kind.CERTIFICATE, "a certificate of one signature", _short_certificate),
    "other_result": Lie(Kind.RESULT, "another model than the sum leads to", _other_result),
}


class LyingGrid(LoopbackGrid):
    """A loopback grid whose server tells one of ``LIES``, to every site, in every attempt."""

    lie: Lie
    cheat: Cheat
    site_of_node: dict[int, str]

    @classmethod
    def telling(cls, name: str, cheat: Cheat, *arguments: Any, **settings: Any) -> "LyingGrid":
        """Make the grid; ``name`` is one of ``LIES``, the rest as for ``LoopbackGrid``.

        Raises: ScenarioInvalidError for another name.
        """
        if name not in LIES:
            raise ScenarioInvalidError(f"running.lie is {name!r}; the lies are: {', '.join(LIES)}")
        grid = cls(*arguments, **settings)
        grid.lie, grid.cheat = LIES[name], cheat
        grid.site_of_node = {node.node_id: node.name for node in grid.get_nodes()}
        return grid

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Change what the lie changes, then send."""
        return super().push_messages([self._changed(message) for message in messages])

    def _changed(self, message: Message) -> Message:
        if message.metadata.message_type != MESSAGE_TYPES[self.lie.kind]:
            return message
        received = from_content(message.content, max_payload_bytes=MAX_PAYLOAD_BYTES)
        receiver = self.site_of_node[message.metadata.dst_node_id]
        packet = self.lie.change(self.cheat, receiver, Packet(received.message, received.payload))
        message.content = to_content(packet, received.nonce)
        return message


def _message(packet: Packet, kind: Kind, wanted: type[Any]) -> Any:
    _, message = decode(packet.message, {kind})
    assert isinstance(message, wanted)  # noqa: S101 (our own server made it)
    return message


def _is_deceived(cheat: Cheat, receiver: str) -> bool:
    return receiver != cheat.victim and cheat.sites.index(receiver) % 2 == 0


def cheat_of(order_key: Ed25519PrivateKey, folders: Mapping[str, Path]) -> Cheat:
    """Return the cheat that is after the second site."""
    sites = tuple(folders)
    return Cheat(order_key, sites[1], sites)
