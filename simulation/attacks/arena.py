"""Where an attack is played, and how it is judged: by what honest sites and the honest server really did.

The attacker holds what its role gives it: a malicious server the order key and all packets, a malicious site its own
identity and session, a network all bytes. The honest parties are ``client.secagg.session.SiteSession`` and
``server.secagg.session.ServerSession`` as they run in a hospital and at a coordinator.

An attack is refused if every hostile thing in it was refused by a check, every honest site that refused is dead, and no
share of an honest site came into the attacker's hands afterwards, nor a sum. Anything else counts as accepted.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from client.secagg.session import SiteSession
from common.secagg.messages import Packet, decode
from common.secagg.order import Order
from common.secagg.refusals import ALL_CHECKS, TABLE, Check, CheckSet, RoundAbortedError
from common.secagg.stages import SERVER_TRANSITIONS, SITE_RECEIVES, SITE_SENDS, Kind, ServerStage, SiteStage
from server.secagg.facts import RoundFacts
from server.secagg.receipts import Receipt
from server.secagg.session import ServerSession
from simulation.runtime.secagg_federation import NOW_S, Federation, MadeUpWork, new_federation

ZEROS = bytes(32)
COLLUDER, OUTSIDER = "site-005", "site-006"
_MEMORY = Path("/dev/shm")  # noqa: S108 (journals of an attack are fsynced for nothing)
_Closed = TypeVar("_Closed")


@dataclass
class Arena:
    """Hospitals, an honest server where the attack leaves one, and the record of what they did.

    Attributes:
        checks: in force at every honest party. now_s: their clock.
        verdicts: for each hostile thing the check that refused it, or None. released_shares: opened by honest sites
            to the attacker from the first hostile thing on. opened: sums (of which sites) that the attacker read.
    """

    federation: Federation
    checks: CheckSet
    now_s: float = NOW_S
    verdicts: list[Check | None] = field(default_factory=list)
    released_shares: int = 0
    opened: set[tuple[str, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Give every site a session with the checks of this play."""
        for name in self.federation.names:
            self.restart(name)

    @property
    def honest(self) -> tuple[str, ...]:
        """The first four sites; a fifth colludes, a sixth is in the roster and not in the cohort."""
        return self.federation.names[:4]

    @property
    def cohort(self) -> tuple[str, ...]:
        """The first five sites."""
        return self.federation.names[:5]

    def restart(self, name: str) -> SiteSession:
        """Start a site's agent (again): same keys, policy and journal, a session of its own."""
        return self.federation.new_session(name, checks=self.checks, clock=lambda: self.now_s)

    def change_policy(self, **changes: Any) -> None:
        """Give every site another policy, as if its staff had approved that."""
        for name, policy in self.federation.policies.items():
            self.federation.policies[name] = replace(policy, **changes)
            self.restart(name)

    def new_order(self, **changes: Any) -> Order:
        """Return a good order for five sites (four shares open), changed as told."""
        return self.federation.new_order(**{"cohort": self.cohort, "threshold": 4, **changes})

    def run_until(
        self, kind: Kind, order: Order | None = None, **settings: Any
    ) -> tuple[ServerSession, dict[str, Packet]]:
        """Play honestly up to the moment at which the packets of ``kind`` leave the server; ``settings``: of it."""
        server = self.federation.new_server(order or self.new_order(), checks=self.checks, **settings)
        packets = server.start()
        while _about_to_leave(server) is not kind:
            self.federation.deliver(server, packets)
            packets = server.advance()
        return server, packets

    def open_honestly(self, order: Order) -> list[int]:
        """Play a whole honest round and return the sum of the bodies."""
        server, packets = self.run_until(Kind.CERTIFICATE, order)
        self.federation.deliver(server, packets)
        return [int(value) for value in server.finish().total.body_sum]

    def tell(self, name: str, packet: Packet) -> Packet:
        """Give an honest site a packet, count the shares in its answer and return that."""
        answer = self.federation.sites[name].receive(packet.message, packet.payload)
        kind, message = decode(answer.message, SITE_SENDS)
        if kind is Kind.UNMASK:
            self.released_shares += len(message.seed_shares) + len(message.key_shares)
        return answer

    def offer(self, name: str, packet: Packet) -> Packet | None:
        """Give an honest site something hostile and note its verdict; returns its answer unless it refused."""
        answer = self.tell(name, packet)
        kind, message = decode(answer.message, SITE_SENDS)
        # a busy site goes on with what it does; after every other refusal it must be dead
        is_refused = kind is Kind.REFUSAL and (
            message.check is Check.ANY_BUSY or self.federation.sites[name].stage is SiteStage.DEAD
        )
        self.verdicts.append(message.check if is_refused else None)
        return None if is_refused else answer

    def claim(self, names: tuple[str, ...], attempt: int, values: Iterable[int]) -> None:
        """Note that the attacker has the sum over these sites, if that is what the values are."""
        if list(values) == self.federation.expected_sum(names, attempt)[1]:
            self.opened.add(names)

    def hand_in(self, server: ServerSession, answer: Packet) -> Receipt:
        """Give the honest server something hostile and note its verdict."""
        receipt = server.receive(answer.message, answer.payload)
        self.verdicts.append(receipt.check)
        return receipt

    def close(self, stage: Callable[[], _Closed]) -> _Closed | None:
        """Let the honest server close a stage that an attack has spoilt, and note its verdict."""
        try:
            closed = stage()
        except RoundAbortedError as aborted:
            self.verdicts.append(aborted.check)
            return None
        except IndexError:  # C.sum switched off: reading a sum and checking it are one step, so there is none to return
            self.verdicts.append(Check.ANY_INTERNAL)
            return None
        self.verdicts.append(None)
        return closed

    def answers_to(self, packets: Mapping[str, Packet]) -> dict[str, Packet]:
        """Return what the sites answer to honest packets."""
        sites = self.federation.sites
        return {name: sites[name].receive(packet.message, packet.payload) for name, packet in packets.items()}


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that is gone afterwards, in memory where there is one."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)


def facts_of(server: ServerSession) -> RoundFacts:
    """Return what a server's session knows: a malicious server runs one too."""
    return server._facts  # noqa: SLF001 (its owner may look)


def memory_of(federation: Federation, name: str) -> Any:
    """Return the session state of a site in the attacker's hands, secrets included (or, read only, its public part)."""
    return federation.sites[name]._state  # noqa: SLF001 (its owner may look)


def copy_disk(federation: Federation, name: str, copy: Path) -> None:
    """Copy a site's journal with what lies beside it (SQLite's newest pages), as whoever copies the disk does."""
    journal = federation.journals[name]._path  # noqa: SLF001 (a disk has no private members)
    for ending in ("", "-wal"):
        if (source := journal.with_name(journal.name + ending)).exists():
            shutil.copyfile(source, copy.with_name(copy.name + ending))


def repeat_the_first_vector(work: MadeUpWork) -> None:
    """Make a site contribute the same numbers in every attempt: no noise, or noise that repeats."""
    first = work.draw(1)
    work.draw = lambda _: first


def _about_to_leave(server: ServerSession) -> Kind:
    if server.stage is ServerStage.WAITING_FOR_KEYS:
        return Kind.ORDER
    return next(step.sends for step in SERVER_TRANSITIONS.values() if step.goes_to is server.stage and step.sends)


def read(packet: Packet, kinds: frozenset[Kind] = SITE_RECEIVES) -> Any:
    """Return the message of a packet of the server (or, with ``SITE_SENDS``, of a site)."""
    return decode(packet.message, kinds)[1]


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack.

    Attributes:
        name: a sentence that says who does what. check: what must refuse it. play: does it.
        sites: size of the roster. phase: rules of the approved plan that the attack needs.
    """

    name: str
    check: Check
    play: Callable[[Arena], None]
    sites: int = 6
    phase: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attack: the first check that refused, or None; whether all of it was refused; what it won."""

    name: str
    check: Check | None
    is_refused: bool
    released_shares: int
    opened: frozenset[tuple[str, ...]]

    def to_json(self) -> dict[str, object]:
        """Return the four agreed fields; ``code`` is null where the attack was accepted."""
        return {
            "name": self.name,
            "refused": self.is_refused,
            "code": TABLE[self.check].code if self.is_refused and self.check else None,
            "released_shares": self.released_shares,
        }


def play(attack: Attack, checks: CheckSet = ALL_CHECKS) -> Outcome:
    """Play an attack against new hospitals and judge it; ``checks`` lets a test switch one off at all of them."""
    with scratch_folder() as folder:
        arena = Arena(new_federation(attack.sites, folder, **attack.phase), checks)
        attack.play(arena)
    verdicts = arena.verdicts
    is_refused = bool(verdicts) and None not in verdicts and not arena.released_shares and not arena.opened
    first = next((verdict for verdict in verdicts if verdict is not None), None)
    return Outcome(attack.name, first, is_refused, arena.released_shares, frozenset(arena.opened))
