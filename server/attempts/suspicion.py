"""Who may have sent garbage: what sound and unsound sums prove, whom to leave out next, who rests and for how long.

A sum that fails its check says that somebody in it lied. A sum that passes says nothing of those in it: a liar may
keep quiet, and lie only beside a hospital that it wants to be expelled. So nobody is judged by one sound sum:

    explanation   at most k hospitals of whom each unsound sum held one; if no more than k lie, they are one
    proven        the only explanation that is left: it rests, for a bounded number of attempts
    suspects      two explanations, each left out alone of a sum that was then sound: mutual suspicion. The search ends,
                  people are told both names, and in turn one of the two is left out. If sums with everybody fail again
                  later, a third is looked for, and so on: somebody may lie only beside both

k is the plan's ``assumed_colluders``, at least 1; fewer where so many cannot be left out, or be told apart in time.
With no more than k liars an honest hospital is never proven guilty. Sums that are sound move the model while the search
goes on: only unsound ones cost an attempt, and each of those strikes an explanation out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from server.study.journal_rows import SuspicionKind, SuspicionRow

UNSOUND_BEFORE_SEARCH: Final = 2
FIRST_REST: Final = 16  # attempts
LONGEST_REST: Final = 256
MOST_SETS: Final = 20_000  # that are looked at: k is lowered where there would be more

Sites = frozenset[str]


def explanations(unsound: Sequence[Sites], most: int) -> list[Sites]:
    """Return every set of at most ``most`` sites that has a member in each unsound sum, and no smaller one in it."""
    found: set[Sites] = set()

    def grow(chosen: Sites) -> None:
        unexplained = [each for each in unsound if not each & chosen]
        if not unexplained:
            found.add(chosen)
        elif len(chosen) < most:
            for site in min(unexplained, key=len):
                grow(chosen | {site})

    grow(frozenset())
    return [each for each in found if not any(other < each for other in found)]


@dataclass(eq=False)
class Suspicions:
    """The sums of a study that were checked while somebody seemed to lie.

    Attributes: most_liars, k as the plan has it; unsound, who was in each sum that failed; left_out, who of the cohort
    was not in each sum that passed while the search went on; in_force, what was concluded and still holds; searching.
    """

    most_liars: int
    unsound: list[Sites] = field(default_factory=list)
    left_out: list[Sites] = field(default_factory=list)
    in_force: SuspicionRow | None = None
    concluded: int = 0
    searching: bool = False
    _in_row: int = 0

    def note_unsound(self, summed: Sites) -> None:
        """Take note of a sum that failed its check: one of ``summed`` lied."""
        self.unsound.append(summed)
        self._in_row += 1
        # a second conclusion rests on what is known already: it needs no second failure
        self.searching = self.searching or self._in_row >= UNSOUND_BEFORE_SEARCH or self.concluded > 0
        self.in_force = None

    def note_sound(self, whole: Sites, summed: Sites) -> None:
        """Take note of a sum that passed, although ``whole`` could have been in it."""
        self._in_row = 0
        if self.searching:
            self.left_out.append(whole - summed)

    def left_out_in(self, attempt: int, whole: Sequence[str], *, least: int, turn: int | None = None) -> Sites | None:
        """Return whom an attempt leaves out of ``whole``, which is in a public order; None where no set explains all.

        At most so many that ``least`` remain. ``turn``: which of two that are left out in turn; None: by the attempt.
        """
        room = len(whole) - least
        if self.in_force and attempt >= self.in_force.until_attempt:
            self.in_force = None
        if self.in_force:
            groups = self.in_force.groups
            resting = frozenset(groups[(attempt if turn is None else turn) % len(groups)]) & frozenset(whole)
            return resting if len(resting) <= room else frozenset()
        if not self.searching or room < 1:
            return frozenset()
        possible = self._possible(whole, room)
        return _next_test(possible, self.left_out, room) if possible else None

    def conclude(self, attempt: int, whole: Sequence[str], *, least: int) -> SuspicionRow | None:
        """Return what the sums up to ``attempt`` prove now, if that is new; it holds for the attempts that follow."""
        room = len(whole) - least
        possible = self._possible(whole, room) if self.searching and room > 0 else []
        if not possible:
            return None
        proven = possible[0] if len(possible) == 1 else frozenset()
        alone = _left_out_alone(possible, self.left_out)
        until = attempt + 1 + min(FIRST_REST << self.concluded, LONGEST_REST)
        if proven and len(proven) <= room:
            why = _why_proven(proven, len(self.unsound), max(map(len, possible)), until)
            row = SuspicionRow(attempt, SuspicionKind.RESTS, (tuple(sorted(proven)),), until, why)
        elif len(alone) >= min(2 + self.concluded, len(possible)):
            groups = tuple(tuple(sorted(each)) for each in alone)
            row = SuspicionRow(attempt, SuspicionKind.MUTUAL, groups, until, _why_mutual(groups, until))
        else:
            return None
        self.take_up(row)
        return row

    def remember(self, unsound: Sequence[tuple[int, Sequence[str]]], rows: Sequence[SuspicionRow]) -> None:
        """Take up what a journal holds of the time before a restart; ``unsound``: attempt, and who was in its sum."""
        before = [(attempt, frozenset(summed)) for attempt, summed in unsound]
        for row in rows:
            for _, summed in (each for each in before if each[0] <= row.attempt):
                self.note_unsound(summed)
            before = [each for each in before if each[0] > row.attempt]
            self.take_up(row)
        for _, summed in before:
            self.note_unsound(summed)

    def take_up(self, row: SuspicionRow) -> None:
        """Hold to what was concluded."""
        self.in_force, self.searching, self.concluded = row, False, self.concluded + 1

    def _possible(self, whole: Sequence[str], room: int) -> list[Sites]:
        """Return the explanations that can be told apart by leaving somebody out, in public order; [] if none is left.

        Where even k liars do not explain the sums, one more is thought of.
        """
        rank = {site: place for place, site in enumerate(whole)}
        known = [each & frozenset(rank) for each in self.unsound]
        most = max(1, min(self.most_liars, room))
        while most > 1 and len(rank) ** most > MOST_SETS:
            most -= 1
        found = explanations(known, most)
        if not found and most < room and len(rank) ** (most + 1) <= MOST_SETS:
            found = explanations(known, most + 1)
        return sorted(found, key=lambda sites: (len(sites), sorted(rank[site] for site in sites)))


def _next_test(possible: Sequence[Sites], left_out: Sequence[Sites], room: int) -> Sites:
    """Return whom to leave out so that few attempts are lost: a sound sum costs nothing, an unsound one tells much.

    So as many as there is room for; after a sound sum they come back one by one, until one explanation was left out
    alone. The others are then tested against it.
    """
    alone = _left_out_alone(possible, left_out)
    others = [each for each in possible if each not in alone]
    apart = [each for each in others if not alone or not each & alone[0]] or others
    inside = [[each for each in apart if each <= left] for left in left_out]
    hints = [each for each in inside if each]
    if not hints:
        test: Sites = frozenset()
        for each in apart:
            if len(test | each) <= room:
                test |= each
        return test
    first, *more = min(hints, key=lambda each: len(frozenset().union(*each)))
    spare = sorted(frozenset().union(*more) - first)
    return first | frozenset(spare[1:])


def _left_out_alone(possible: Sequence[Sites], left_out: Sequence[Sites]) -> list[Sites]:
    """Return the explanations of which each was left out of a sound sum while all others had a member in it.

    Who is in no explanation may have been missing as well: a hospital that dropped out, or that no group had room for.
    """
    inside = [[each for each in possible if each <= left] for left in left_out]
    return [each for each in possible if [each] in inside]


def _why_proven(proven: Sites, failures: int, liars: int, until: int) -> str:
    who = " and ".join(sorted(proven))
    return (
        f"every one of {failures} sums that failed their check held {who}, and no other {_hospitals(liars)} explain "
        f"them all (certain if no more than {_hospitals(liars)} lie): left out until attempt {until}; ask there for "
        "version and logs"
    )


def _why_mutual(groups: Sequence[Sequence[str]], until: int) -> str:
    names = [" and ".join(group) for group in groups]
    others = "".join(f", and just as sound without {name}" for name in names[1:])
    return (
        f"sums are sound without {names[0]}{others}: one of them lies, or somebody lies only beside them or now and "
        f"then. Until attempt {until} they are left out in turn; ask each of them for version and logs"
    )


def _hospitals(count: int) -> str:
    return "one hospital" if count == 1 else f"{count} hospitals"
