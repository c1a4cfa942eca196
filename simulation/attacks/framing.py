"""A hospital sends garbage so that another is expelled: attempt after attempt, with the coordinator's own search."""

from collections.abc import Callable

from common.secagg.refusals import Check
from common.secagg.thresholds import default_threshold
from server.attempts.suspicion import Suspicions
from server.study.journal_rows import SuspicionKind
from simulation.attacks.arena import Arena, Attack
from simulation.attacks.lying_sites import GarbageSite, When, always, beside


def _frame(when: When) -> Callable[[Arena], None]:
    """The last hospital lies until the search ends; accepted where an honest one is left out alone then."""

    def play(arena: Arena) -> None:
        names = arena.federation.names
        liar, search, least = names[-1], Suspicions(most_liars=1), default_threshold(len(names), 1)
        honest, identity = arena.federation.sites[liar], arena.federation.identities[liar]
        arena.federation.sites[liar] = GarbageSite(honest, identity, when)  # type: ignore[assignment]
        for attempt in range(1, 4 * len(names)):
            cohort = frozenset(names) - (search.left_out_in(attempt, names, least=least) or frozenset())
            if _is_sound(arena, tuple(sorted(cohort)), threshold=least):
                search.note_sound(frozenset(names), cohort)
            else:
                search.note_unsound(cohort)
            row = search.conclude(attempt, names, least=least)
            if row:
                if row.kind is SuspicionKind.RESTS and row.groups != ((liar,),):
                    arena.verdicts.append(None)
                return

    return play


def _is_sound(arena: Arena, cohort: tuple[str, ...], *, threshold: int) -> bool:
    order = arena.federation.new_order(cohort=cohort, threshold=threshold)
    server = arena.federation.new_server(order, checks=arena.checks)
    packets = server.start()
    for _ in range(4):
        arena.federation.deliver(server, packets)
        packets = server.advance()
    arena.federation.deliver(server, packets)
    before = len(arena.verdicts)
    arena.close(server.finish)
    if arena.verdicts[-1] is not None:
        return False
    del arena.verdicts[before:]  # a sound sum is nothing hostile
    return True


def _beside_both(*victims: str) -> When:
    return lambda cohort: set(victims) <= cohort


_WHEN: dict[str, When] = {
    "always": always,
    "only beside its victim": beside("site-001"),
    "beside either of two victims": beside("site-001", "site-002"),
    "only beside both of two victims": _beside_both("site-001", "site-002"),
}

FRAMING = [
    Attack(f"one of {size} sites sends garbage {words}", Check.C_SUM, _frame(when), sites=size)
    for size in (5, 8)
    for words, when in _WHEN.items()
]
