"""Hospitals and a coordinator in one process, with real sessions on both sides: for tests, attackers and examples.

    federation = new_federation(5, folder)
    opened = federation.run_round(federation.new_order())
    opened = federation.run_round(federation.new_order(), silent_from={"site-002": Kind.MASKED})

Everything is the code that runs in a hospital; only the vectors are made up. A hostile case builds what it needs from
the parts: it may hold any identity key, drop or change packets between the two sides, and switch off one check.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.secagg.journal import SiteJournal
from client.secagg.rules import PhaseRules, SitePolicy
from client.secagg.session import SiteSession
from client.secagg.state import Contribution
from common.secagg.keys import sign
from common.secagg.messages import Packet, SignedOrder, encode
from common.secagg.order import Order, encode_order, model_digest
from common.secagg.refusals import ALL_CHECKS, CheckSet
from common.secagg.stages import SITE_TRANSITIONS, Kind
from common.secagg.statements import order_statement
from common.secagg.thresholds import default_threshold, least_survivors
from server.secagg.opening import OpenedSum
from server.secagg.session import ServerSession

PLAN = bytes([1]) * 32
MODEL = b"initial weights"
META_WORDS, BODY_LENGTH = 3, 8
NOW_S = 1_800_000_000
_LAYOUT, _TASK, _PRIVACY, _ROSTER = (bytes([number]) * 32 for number in (2, 3, 4, 5))
_STAGES = [kind for (_, kind) in SITE_TRANSITIONS if kind not in {Kind.ORDER, Kind.RESULT}]


@dataclass
class MadeUpWork:
    """A site's training and ledger, made up: contributes what it is told and notes in ``events`` what was asked of it.

    ``draw(attempt)`` gives the vector of an attempt: lattice integers, so that sums can be compared exactly.
    """

    draw: Callable[[int], Contribution]
    events: list[str] = field(default_factory=list)

    def contribute(self, order: Order, model: memoryview, until_unix_s: float) -> Contribution:
        """Return the vector of this attempt."""
        del until_unix_s
        self.events.append(f"reserved {order.attempt} for {len(model)} bytes")
        return self.draw(order.attempt)

    def spend(self, order: Order) -> None:
        """Note it."""
        self.events.append(f"spent {order.attempt}")

    def ledger_head(self, order: Order) -> bytes:
        """Return 32 bytes that depend on the number of events."""
        return bytes([len(self.events) % 256, order.phase]) * 16

    def abandon(self, order: Order) -> None:
        """Note it."""
        self.events.append(f"void {order.attempt}")


def made_up_vector(
    seed: int, attempt: int, *, meta_words: int = META_WORDS, body_length: int = BODY_LENGTH
) -> Contribution:
    """Return small lattice integers that differ between sites (``seed``) and attempts."""
    generator = np.random.default_rng([seed, attempt])
    meta = generator.integers(0, 1000, meta_words, dtype=np.uint64)
    return Contribution(meta, generator.integers(-100, 101, body_length, dtype=np.int32))


@dataclass
class Federation:
    """The parts, by site name where there are several.

    Attributes:
        identities: Ed25519 secret keys. order_key: the coordinator's. policies, journals, work, sites: of each site.
        order: a good order for attempt 1, to be changed by ``new_order``.
    """

    identities: dict[str, Ed25519PrivateKey]
    order_key: Ed25519PrivateKey
    policies: dict[str, SitePolicy]
    journals: dict[str, SiteJournal]
    work: dict[str, MadeUpWork]
    sites: dict[str, SiteSession]
    order: Order
    attempts: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The sites, sorted."""
        return tuple(sorted(self.identities))

    @property
    def public_keys(self) -> dict[str, bytes]:
        """The roster: site -> Ed25519 public key."""
        return {name: key.public_key().public_bytes_raw() for name, key in self.identities.items()}

    def new_order(self, **changes: object) -> Order:
        """Return a good order with the next attempt and a nonce of its own, then changed as told."""
        self.attempts += 1
        fresh = replace(self.order, attempt=self.attempts, nonce=self.attempts.to_bytes(32, "big"))
        return replace(fresh, **changes)  # type: ignore[arg-type]

    def new_server(
        self, order: Order, *, model: bytes = MODEL, checks: CheckSet = ALL_CHECKS, **settings: Any
    ) -> ServerSession:
        """Return the coordinator's session for an order; ``settings``: more of ``ServerSession``'s."""
        return ServerSession(
            order=order, order_key=self.order_key, identities=self.public_keys, model=model, checks=checks, **settings
        )

    def new_session(
        self, name: str, *, checks: CheckSet = ALL_CHECKS, clock: Callable[[], float] = lambda: NOW_S
    ) -> SiteSession:
        """Replace a site's session (a restart of its agent, or one with a check switched off)."""
        self.sites[name] = SiteSession(
            policy=self.policies[name],
            identity=self.identities[name],
            journal=self.journals[name],
            work=self.work[name],
            checks=checks,
            clock=clock,
        )
        return self.sites[name]

    def deliver(self, server: ServerSession, packets: Mapping[str, Packet], lost: frozenset[str] = frozenset()) -> None:
        """Give each site its packet and the server each answer, but those of ``lost`` sites."""
        for name, packet in packets.items():
            if name not in lost:
                answer = self.sites[name].receive(packet.message, packet.payload)
                server.receive(answer.message, answer.payload)

    def sign_order(self, order: Order, *, key: Ed25519PrivateKey | None = None, model: bytes = MODEL) -> Packet:
        """Return an ORDER as a coordinator with that key (its own by default) would send it, whatever is in it."""
        octets = encode_order(order)
        signed = SignedOrder(order=octets, signature=sign(key or self.order_key, *order_statement(octets)))
        return Packet(encode(signed), memoryview(model))

    def run_until(self, kind: Kind, order: Order) -> tuple[ServerSession, dict[str, Packet]]:
        """Run an honest attempt up to the moment at which the packets of ``kind`` are about to leave the server."""
        server = self.new_server(order)
        packets = server.start()
        for _ in range([Kind.ORDER, *_STAGES].index(kind)):
            self.deliver(server, packets)
            packets = server.advance()
        return server, packets

    def run_round(self, order: Order, *, silent_from: Mapping[str, Kind] | None = None) -> OpenedSum:
        """Run one attempt; a site in ``silent_from`` does not answer the stage's message of that kind, nor any later.

        Raises: RoundAbortedError when too few are left.
        """
        server, silence = self.new_server(order), silent_from or {}
        packets = server.start()
        for kind in (Kind.ORDER, *_STAGES):
            lost = frozenset(name for name, since in silence.items() if _has_come(since, kind))
            self.deliver(server, packets, lost)
            if kind is Kind.CERTIFICATE:
                break
            packets = server.advance()
        return server.finish()

    def expected_sum(self, participants: tuple[str, ...], attempt: int) -> tuple[list[int], list[int]]:
        """Return the sums of meta and body over ``participants`` as plain integers."""
        vectors = [self.work[name].draw(attempt) for name in participants]
        meta = [sum(map(int, column)) for column in zip(*(vector.meta for vector in vectors), strict=True)]
        body = [sum(map(int, column)) for column in zip(*(vector.body for vector in vectors), strict=True)]
        return meta, body


def _has_come(since: Kind, kind: Kind) -> bool:
    order = [Kind.ORDER, *_STAGES]
    return order.index(since) <= order.index(kind)


def new_federation(size: int, folder: Path, *, colluders: int = 1, **phase_changes: object) -> Federation:
    """Return ``size`` hospitals that all approved the same made-up plan; journals go to ``folder``."""
    names = [f"site-{number:03}" for number in range(1, size + 1)]
    identities = {name: Ed25519PrivateKey.generate() for name in names}
    order_key = Ed25519PrivateKey.generate()
    phase = replace(_made_up_phase(), **phase_changes)  # type: ignore[arg-type]
    policy = SitePolicy(
        site_id=names[0],
        federation="made-up",
        epoch=1,
        roster_digest=_ROSTER,
        identities={name: key.public_key().public_bytes_raw() for name, key in identities.items()},
        order_key=order_key.public_key().public_bytes_raw(),
        plan_digest=PLAN,
        phases=(phase,),
        confirmed=frozenset(names),
        minimum_survivors=least_survivors(colluders),
        colluders=colluders,
    )
    federation = Federation(
        identities=identities,
        order_key=order_key,
        policies={name: replace(policy, site_id=name) for name in names},
        journals={name: SiteJournal(folder / f"{name}.sqlite") for name in names},
        work={name: MadeUpWork(_drawing(number, phase)) for number, name in enumerate(names)},
        sites={},
        order=_made_up_order(policy, phase, names),
    )
    for name in names:
        federation.new_session(name)
    return federation


def _drawing(seed: int, phase: PhaseRules) -> Callable[[int], Contribution]:
    return lambda attempt: made_up_vector(seed, attempt, meta_words=phase.meta_words, body_length=phase.body_length)


def _made_up_phase() -> PhaseRules:
    return PhaseRules(
        layout_digest=_LAYOUT,
        task_digest=_TASK,
        privacy_digest=_PRIVACY,
        model_bytes=len(MODEL),
        rounds=100,
        maximum_attempts=100,
        meta_words=META_WORDS,
        body_length=BODY_LENGTH,
        coordinate_range=4.0,
        minimum_guard_bits=4,
    )


def _made_up_order(policy: SitePolicy, phase: PhaseRules, names: list[str]) -> Order:
    return Order(
        federation=policy.federation,
        epoch=policy.epoch,
        roster_digest=policy.roster_digest,
        plan_digest=policy.plan_digest,
        phase=0,
        round_number=1,
        attempt=1,
        nonce=bytes(32),
        cohort=tuple(names),
        threshold=default_threshold(len(names), policy.colluders),
        minimum_survivors=policy.minimum_survivors,
        colluders=policy.colluders,
        meta_words=phase.meta_words,
        body_length=phase.body_length,
        word_bits=32,
        guard_bits=4,
        coordinate_range=phase.coordinate_range,
        cohort_maximum=len(names),
        layout_digest=phase.layout_digest,
        task_digest=phase.task_digest,
        privacy_digest=phase.privacy_digest,
        model_digest=model_digest(phase.layout_digest, phase.frozen_digest, MODEL),
        model_bytes=len(MODEL),
        deadline_unix_s=NOW_S + 3600,
    )
