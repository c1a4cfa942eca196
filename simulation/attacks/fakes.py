"""A malicious coordinator's invented hospitals: in the roster, with keys of its own, and confirmed by nobody.

``site-005`` and ``site-006`` are invented, or fewer hospitals than that are confirmed, as each attack says; every
hospital's staff confirmed the others. The order asks for a threshold that the arithmetic allows even so.
"""

from collections.abc import Callable
from dataclasses import replace

from client.secagg.rules import SecondAttempt
from common.secagg.refusals import Check
from common.secagg.stages import Kind
from simulation.attacks.arena import Arena, Attack

_ORDER_OF = {Kind.KEYLIST: Kind.ORDER, Kind.FORWARD: Kind.KEYLIST, Kind.SURVIVORS: Kind.FORWARD}
LOST = "site-004"


def _confirm(arena: Arena, names: tuple[str, ...], least: int | None = None) -> None:
    """Let every hospital's staff have confirmed ``names`` (and know their own)."""
    for name, policy in arena.federation.policies.items():
        known = frozenset({name, *names})
        arena.federation.policies[name] = replace(policy, confirmed=known, minimum_confirmed=least)
        arena.restart(name)


def _cohort_of_fakes(arena: Arena) -> None:
    """Two real hospitals among three invented ones; the threshold is high enough for all of them to be hostile."""
    _confirm(arena, ("site-001", "site-002"))
    packet = arena.federation.sign_order(arena.new_order(threshold=5))
    for name in ("site-001", "site-002"):
        arena.offer(name, packet)


def _alone_among_fakes(arena: Arena) -> None:
    """The coordinator owns every other hospital: the sum would be one hospital's update and noise it knows."""
    _confirm(arena, ())
    arena.offer("site-001", arena.federation.sign_order(arena.new_order(threshold=5)))


def _fakes_and_a_colluder(arena: Arena) -> None:
    """One invented hospital beside the assumed colluder: together they would get both kinds of share."""
    _confirm(arena, arena.honest)
    packet = arena.federation.sign_order(arena.new_order(threshold=4, cohort=arena.federation.names))
    for name in arena.honest:
        arena.offer(name, packet)


def _two_sums_of_fakes(arena: Arena) -> None:
    """Without noise, invented hospitals open a second sum over one model with those who did not see the first."""
    _confirm(arena, ("site-001", "site-002", "site-003", "site-004"))
    order = arena.new_order(cohort=arena.cohort[:4], threshold=4, minimum_survivors=3)
    packet = arena.federation.sign_order(order)
    for name in arena.honest:
        arena.offer(name, packet)


def _fewer_real_ones(kind: Kind) -> Callable[[Arena], None]:
    """Six hospitals, two of them invented; then a real one is said to be lost, and the lists hold three real ones."""

    def play(arena: Arena) -> None:
        _confirm(arena, arena.honest, least=4)
        order = arena.new_order(cohort=arena.federation.names, threshold=5)
        server = arena.federation.new_server(order, checks=arena.checks)
        packets = server.start()
        for step in (Kind.ORDER, Kind.KEYLIST, Kind.FORWARD):
            lost = frozenset({LOST}) if step is _ORDER_OF[kind] else frozenset[str]()
            arena.federation.deliver(server, packets, lost)
            packets = server.advance()
            if lost:
                break
        for name in arena.honest:
            if name != LOST:
                arena.offer(name, packets[name])

    return play


def _half_of_a_whole_roster(arena: Arena) -> None:
    """All six take part and all six must answer, so that no arithmetic is against it; three of them were confirmed."""
    _confirm(arena, ("site-001", "site-002", "site-003"), least=4)
    packet = arena.federation.sign_order(arena.new_order(threshold=6, cohort=arena.federation.names))
    for name in ("site-001", "site-002", "site-003"):
        arena.offer(name, packet)


def _two_fakes_of_five(arena: Arena) -> None:
    """Enough confirmed hospitals by their number; the fakes and a colluder would still hold both kinds of share."""
    _confirm(arena, arena.honest[:3], least=3)
    packet = arena.federation.sign_order(arena.new_order(threshold=4))
    for name in arena.honest[:3]:
        arena.offer(name, packet)


_LISTS = {
    "shows keys of": (Kind.KEYLIST, Check.R1_CONFIRMED),
    "forwards shares of": (Kind.FORWARD, Check.R2_CONFIRMED),
    "opens a sum over": (Kind.SURVIVORS, Check.R3_CONFIRMED),
}
FAKES = [
    Attack("server orders a cohort of two confirmed hospitals and three fakes", Check.R0_CONFIRMED, _cohort_of_fakes),
    Attack("server owns every hospital but one", Check.R0_CONFIRMED, _alone_among_fakes),
    Attack("server fills half of a whole roster with fakes", Check.R0_CONFIRMED, _half_of_a_whole_roster),
    Attack(
        "server keeps the number of confirmed hospitals and adds two fakes", Check.R0_BOTH_KINDS, _two_fakes_of_five
    ),
    Attack("server adds fakes to a colluder, for both kinds of share", Check.R0_BOTH_KINDS, _fakes_and_a_colluder),
    Attack(
        "server counts on fakes to open a second sum without noise",
        Check.R0_TWO_SUMS,
        _two_sums_of_fakes,
        phase={"second_attempt": SecondAttempt.NEVER},
    ),
    *(
        Attack(f"server {does} three confirmed hospitals and two fakes", check, _fewer_real_ones(kind))
        for does, (kind, check) in _LISTS.items()
    ),
]
