"""A malicious server's orders: well signed, and against what the hospitals approved or remember."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from client.secagg.rules import SecondAttempt
from client.secagg.state import Contribution
from common.secagg.messages import Packet, encode
from common.secagg.order import model_digest
from common.secagg.refusals import Check
from common.secagg.stages import SITE_SENDS, Kind
from simulation.attacks.arena import ZEROS, Arena, Attack, read, repeat_the_first_vector
from simulation.runtime.secagg_federation import MODEL, NOW_S, made_up_vector

_Changes = Callable[[Arena], Mapping[str, Any]]


def _ordered(changes: _Changes, *, model: bytes = MODEL) -> Callable[[Arena], None]:
    """Sign a changed order with the genuine key and give it to every honest site."""

    def play(arena: Arena) -> None:
        packet = arena.federation.sign_order(arena.new_order(**changes(arena)), model=model)
        for name in arena.honest:
            arena.offer(name, packet)

    return play


def _always(**changes: Any) -> _Changes:
    return lambda _: changes


_FIXED: list[tuple[str, Check, dict[str, Any]]] = [
    ("orders a round of another federation", Check.R0_FEDERATION, {"federation": "elsewhere"}),
    ("orders under a roster with identities of its own", Check.R0_ROSTER, {"roster_digest": ZEROS}),
    ("orders under an expired roster", Check.R0_EPOCH, {"epoch": 0}),
    ("orders for a plan that nobody approved", Check.R0_PLAN, {"plan_digest": ZEROS}),
    ("orders a phase that the plan does not have", Check.R0_PHASE, {"phase": 1}),
    ("orders more rounds than planned", Check.R0_ROUND, {"round_number": 101}),
    (
        "orders another layout, with a trap layer",
        Check.R0_LAYOUT,
        {"layout_digest": ZEROS, "model_digest": model_digest(ZEROS, bytes(32), MODEL)},
    ),
    ("orders a task whose loss leaks labels", Check.R0_TASK, {"task_digest": ZEROS}),
    ("orders weaker privacy settings", Check.R0_PRIVACY, {"privacy_digest": ZEROS}),
    ("keeps a session open for a year", Check.R0_DEADLINE, {"deadline_unix_s": NOW_S + 31_536_000}),
    ("orders after the deadline", Check.R0_DEADLINE, {"deadline_unix_s": NOW_S}),
    ("orders a cohort of two", Check.R0_COHORT_MINIMUM, {"cohort": ("site-001", "site-002"), "threshold": 2}),
    ("makes the vector for fewer sites, so that sums wrap", Check.R0_COHORT_MAXIMUM, {"cohort_maximum": 4}),
    ("makes the vector for a thousand sites, so that noise is cut", Check.R0_COHORT_MAXIMUM, {"cohort_maximum": 1000}),
    ("sets a threshold of one", Check.R0_BOTH_KINDS, {"threshold": 1}),
    ("sets a threshold at which both secrets of a site open", Check.R0_BOTH_KINDS, {"threshold": 3}),
    ("sets a threshold above the cohort", Check.R0_REACHABLE, {"threshold": 6}),
    ("asks for sums over one site", Check.R0_SURVIVORS, {"minimum_survivors": 1}),
    ("asks for sums over two sites", Check.R0_SURVIVORS, {"minimum_survivors": 2}),
    ("claims that nobody colludes", Check.R0_COLLUDERS, {"colluders": 0}),
    ("orders 16-bit words", Check.R0_WORD, {"word_bits": 16}),
    ("orders words without guard bits", Check.R0_GUARD, {"guard_bits": 0}),
    ("orders so many guard bits that noise is cut", Check.R0_GUARD, {"guard_bits": 20}),
    ("shrinks the range until only signs are left", Check.R0_RANGE, {"coordinate_range": 1e-6}),
    ("orders a vector of another length", Check.R0_LENGTH, {"body_length": 1 << 28}),
    ("announces a model of another size", Check.R0_MODEL_SIZE, {"model_bytes": 3}),
    ("announces another model than it sends", Check.R0_MODEL_DIGEST, {"model_digest": ZEROS}),
]


def _fewer_honest(arena: Arena) -> Mapping[str, Any]:
    arena.change_policy(minimum_survivors=4)  # noise is made for three honest sites
    return {"minimum_survivors": 4, "colluders": 2, "threshold": 5}


def _lower_attempt(arena: Arena) -> Mapping[str, Any]:
    for name in arena.honest:
        arena.federation.journals[name].record_attempt(arena.federation.order.plan_digest, 0, 7)
    return {"attempt": 2}


def _attempts_used_up(arena: Arena) -> Mapping[str, Any]:
    for name in arena.honest:
        for attempt in (1, 2):
            arena.federation.journals[name].record_attempt(arena.federation.order.plan_digest, 0, attempt)
            arena.federation.journals[name].record_masked(arena.federation.order.plan_digest, 0, attempt)
    return {"attempt": 3}


def _another_result(arena: Arena) -> Mapping[str, Any]:
    plan = arena.federation.order.plan_digest
    for name in arena.honest:
        arena.federation.journals[name].record_result(plan, phase=0, round_number=1, model_digest=ZEROS)
    return {"round_number": 2}


def _cohorts_without_the_one_asked(arena: Arena) -> None:
    for name in arena.honest:
        cohort = tuple(other for other in arena.federation.names if other != name)
        arena.offer(name, arena.federation.sign_order(arena.new_order(cohort=cohort)))


def _order_again(arena: Arena) -> None:
    """The very order of a finished round, to agents that have restarted since."""
    order = arena.new_order()
    arena.open_honestly(order)
    for name in arena.honest:
        arena.restart(name)
        arena.offer(name, arena.federation.sign_order(order))


def _same_vector_twice(arena: Arena) -> None:
    """A site whose noise repeats (a broken generator, a restored snapshot) is made to send it to other survivors."""
    for name in arena.honest:
        repeat_the_first_vector(arena.federation.work[name])
    arena.run_until(Kind.KEYLIST)
    second = arena.federation.sign_order(arena.new_order())
    for name in arena.honest:
        arena.offer(name, second)


def _second_order_during_training(arena: Arena) -> None:
    """While a site trains, a second order comes: one session at a time, and the first goes on."""
    for name in arena.honest:
        second = arena.federation.sign_order(arena.new_order(attempt=50))

        def train(attempt: int, name: str = name, second: Packet = second) -> Contribution:
            arena.offer(name, second)
            return made_up_vector(0, attempt)

        arena.federation.work[name].draw = train
        arena.tell(name, arena.federation.sign_order(arena.new_order()))


def _a_model_for_each_site(arena: Arena) -> None:
    """Pasquini et al.: the victim gets weights of its own, under the order that all others got."""
    server, packets = arena.run_until(Kind.ORDER)
    arena.offer("site-001", Packet(packets["site-001"].message, memoryview(b"dead everywhere")))
    arena.federation.deliver(server, packets, lost=frozenset({"site-001"}))


def _an_order_for_each_site(arena: Arena) -> None:
    """The victim gets an order and a model of its own, and the keys that the others made for theirs."""
    _, packets = arena.run_until(Kind.KEYLIST)
    trap = b"dead everywhere"
    digest = model_digest(arena.federation.order.layout_digest, bytes(32), trap)
    own = arena.federation.sign_order(arena.new_order(model_digest=digest, model_bytes=len(trap)), model=trap)
    keys = read(arena.tell("site-001", own), SITE_SENDS)
    keylist = read(packets["site-001"])
    entries = (keys, *keylist.entries[1:])
    arena.offer("site-001", Packet(encode(replace(keylist, order_digest=keys.order_digest, entries=entries))))


ORDERS = [
    *(Attack(f"server {name}", check, _ordered(_always(**changes))) for name, check, changes in _FIXED),
    Attack(
        "server orders a cohort with repeated names",
        Check.R0_COHORT_SORTED,
        _ordered(lambda a: {"cohort": (*a.cohort[:1], *a.cohort)}),
    ),
    Attack(
        "server orders an unsorted cohort",
        Check.R0_COHORT_SORTED,
        _ordered(lambda a: {"cohort": a.cohort[::-1]}),
    ),
    Attack(
        "server orders a cohort without the site it asks",
        Check.R0_COHORT_SELF,
        _cohorts_without_the_one_asked,
    ),
    Attack(
        "server invents a site (sybil)",
        Check.R0_COHORT_ROSTER,
        _ordered(lambda a: {"cohort": (*a.cohort, "sybil"), "threshold": 4}),
    ),
    Attack("server counts on fewer honest sites than the noise", Check.R0_HONEST, _ordered(_fewer_honest)),
    Attack(
        "server orders words whose sums overflow",
        Check.R0_OVERFLOW,
        _ordered(_always(guard_bits=30)),
        phase={"minimum_guard_bits": 30},
    ),
    Attack("server orders with a lower attempt", Check.R0_ATTEMPT, _ordered(_lower_attempt)),
    Attack("server repeats the order of a finished round after a restart", Check.R0_ATTEMPT, _order_again),
    Attack(
        "server orders more attempts than the noise is made for",
        Check.R0_ATTEMPT_MAXIMUM,
        _ordered(_attempts_used_up),
        phase={"maximum_attempts": 2},
    ),
    Attack(
        "server orders two cohorts that could both open a sum without noise",
        Check.R0_TWO_SUMS,
        _ordered(lambda a: {"cohort": a.cohort[:4], "threshold": 3, "minimum_survivors": 3}),
        phase={"second_attempt": SecondAttempt.NEVER},
    ),
    Attack("server continues from another model than it announced", Check.R0_RESULT, _ordered(_another_result)),
    Attack("server makes sites send the same noise to other survivors", Check.R0_FRESH, _same_vector_twice),
    Attack("server sends a second order while sites train", Check.ANY_BUSY, _second_order_during_training),
    Attack("server sends one site a model of its own", Check.R0_MODEL_DIGEST, _a_model_for_each_site),
    Attack("server sends one site an order and a model of its own", Check.R1_ORDER, _an_order_for_each_site),
]
