"""Who is left out after sums that failed: liars of every cunning against the search, and what it may never do."""

import itertools

import pytest

from server.attempts.suspicion import FIRST_REST, LONGEST_REST, Suspicions, explanations
from server.study.journal_rows import SuspicionKind

ROUNDS = 120


def names(count):
    return tuple(f"site-{number}" for number in range(1, count + 1))


def least(count, colluders=1):
    return max((count + colluders) // 2 + 1, 3)


def played(count, lies, *, colluders=1, order=None, rounds=ROUNDS):
    """Rounds in which a sum is unsound where ``lies(cohort)``: the search, attempts lost, and cohorts applied."""
    search, whole, lost, applied = Suspicions(colluders), tuple(order or names(count)), 0, []
    for attempt in itertools.count(1):
        left = search.left_out_in(attempt, whole, least=least(count, colluders))
        cohort = frozenset(whole) - (left or frozenset())
        if lies(cohort):
            lost += 1
            search.note_unsound(cohort)
        else:
            applied.append(cohort)
            search.note_sound(frozenset(whole), cohort)
        search.conclude(attempt, whole, least=least(count, colluders))
        if len(applied) == rounds or lost > 200:
            return search, lost, applied
    return None


LIARS = {
    "one that always sends garbage": (1, lambda e, v: lambda cohort: e[0] in cohort),
    "one that sends it only beside a victim": (1, lambda e, v: lambda cohort: e[0] in cohort and v[0] in cohort),
    "one that sends it beside either of two": (1, lambda e, v: lambda cohort: e[0] in cohort and set(v[:2]) & cohort),
    "one that sends it only beside both of two": (1, lambda e, v: lambda cohort: {e[0], *v[:2]} <= cohort),
    "two that send it beside one victim": (2, lambda e, v: lambda cohort: set(e[:2]) & cohort and v[0] in cohort),
    "two that always send it": (2, lambda e, v: lambda cohort: set(e[:2]) & cohort),
}


@pytest.mark.parametrize("count", [4, 5, 6, 8, 10, 12])
@pytest.mark.parametrize("liar", LIARS)
def test_no_honest_site_rests_for_good_and_few_attempts_are_lost(liar, count):
    liars, strategy = LIARS[liar]
    room = count - least(count, liars)
    if room < liars:
        pytest.skip("nobody can be left out of so few")
    for turn in range(count):
        order = names(count)[turn:] + names(count)[:turn]
        evil, victims = names(count)[-liars:], names(count)[:2]
        search, lost, applied = played(count, strategy(evil, victims), colluders=liars, order=order)
        assert len(applied) == ROUNDS
        assert lost <= (count + 5 if liars == 1 else 5 * count)
        liar_was_there = max(sum(site in cohort for cohort in applied) for site in evil)
        for honest in set(order) - set(evil):
            # an honest site is hardly left out more often than the liars, and takes part in half of the rounds at least
            present = sum(honest in cohort for cohort in applied)
            assert present >= max(liar_was_there - FIRST_REST, ROUNDS // 2 - count)
        if search.in_force and search.in_force.kind is SuspicionKind.RESTS:
            assert set(search.in_force.groups[0]) <= set(evil)


def test_an_honest_site_is_never_proven_guilty_by_as_many_liars_as_the_plan_assumes():
    for count, hit in itertools.product((5, 8), range(1, 6)):
        evil, victim = names(count)[-1], names(count)[0]

        turn = itertools.count()

        def lies(cohort, evil=evil, victim=victim, hit=hit, turn=turn):
            return evil in cohort and (victim in cohort or next(turn) % 5 < hit)

        search, _, _ = played(count, lies)
        rows = [search.in_force] if search.in_force else []
        assert all(victim not in row.groups[0] for row in rows if row.kind is SuspicionKind.RESTS)


def test_mutual_suspicion_names_both_stops_the_search_and_leaves_them_out_in_turn():
    search, _, applied = played(5, lambda cohort: {"site-1", "site-5"} <= cohort, rounds=20)
    assert search.in_force.kind is SuspicionKind.MUTUAL
    assert {*map(frozenset, search.in_force.groups)} == {frozenset({"site-1"}), frozenset({"site-5"})}
    assert "site-1" in search.in_force.sentence
    assert "site-5" in search.in_force.sentence
    assert not search.searching
    first = applied.index(frozenset(names(5)) - {search.in_force.groups[1][0]})
    there = [("site-1" in cohort, "site-5" in cohort) for cohort in applied[first : first + FIRST_REST]]
    assert there[::2] == [there[0]] * (FIRST_REST // 2)
    assert there[1::2] == [there[1]] * (FIRST_REST // 2)
    assert {there[0], there[1]} == {(True, False), (False, True)}


def test_a_rest_ends_comes_back_longer_and_only_when_it_is_deserved_again():
    search, _, applied = played(5, lambda cohort: "site-3" in cohort, rounds=LONGEST_REST * 4)
    assert all("site-3" not in cohort for cohort in applied)
    assert search.in_force.until_attempt - search.in_force.attempt == LONGEST_REST + 1
    mended, broken = Suspicions(1), iter([True] * 6 + [False] * 100)
    whole, cohorts = names(5), []
    for attempt in range(1, 60):
        cohort = frozenset(whole) - mended.left_out_in(attempt, whole, least=4)
        if "site-3" in cohort and next(broken):
            mended.note_unsound(cohort)
        else:
            mended.note_sound(frozenset(whole), cohort)
            cohorts.append(cohort)
        mended.conclude(attempt, whole, least=4)
    assert cohorts[-1] == frozenset(whole)
    assert sum("site-3" not in cohort for cohort in cohorts) <= FIRST_REST + 2


def test_what_was_concluded_and_what_was_seen_survive_a_restart():
    search, seen, rows, whole = Suspicions(1), [], [], names(5)
    for attempt in range(1, 30):
        cohort = frozenset(whole) - search.left_out_in(attempt, whole, least=4)
        if "site-3" in cohort:
            seen.append((attempt, tuple(sorted(cohort))))
            search.note_unsound(cohort)
        else:
            search.note_sound(frozenset(whole), cohort)
        rows += filter(None, [search.conclude(attempt, whole, least=4)])
    again = Suspicions(1)
    again.remember(seen, rows)
    assert (again.in_force, again.unsound, again.concluded) == (search.in_force, search.unsound, search.concluded)
    assert again.left_out_in(30, whole, least=4) == search.left_out_in(30, whole, least=4)


def test_a_liar_is_found_though_others_are_missing_from_every_sum():
    """Groups leave somebody over, and sites drop out: a sum never lacks the suspect alone."""
    search, whole, missing = Suspicions(1), names(14), itertools.cycle(names(12))
    for attempt in range(1, 40):
        cohort = frozenset(whole) - search.left_out_in(attempt, whole, least=9)
        cohort -= {next(missing), next(missing)} - {"site-13", "site-14"}
        if {"site-13", "site-14"} <= cohort or (attempt < 3 and "site-14" in cohort):
            search.note_unsound(frozenset({"site-13", "site-14", f"site-{attempt}"}))
        else:
            search.note_sound(frozenset(whole), cohort)
        if search.conclude(attempt, whole, least=9):
            break
    assert (
        search.in_force.kind is SuspicionKind.MUTUAL
    )  # each was left out of a sound sum, and nothing tells them apart
    assert {*map(frozenset, search.in_force.groups)} == {frozenset({"site-13"}), frozenset({"site-14"})}


EXPLAINED = {
    "one in common": ([{"a", "b"}, {"b", "c"}], 1, [{"b"}]),
    "none in common": ([{"a", "b"}, {"c", "d"}], 1, []),
    "two of four": ([{"a", "b"}, {"c", "d"}], 2, [{"a", "c"}, {"a", "d"}, {"b", "c"}, {"b", "d"}]),
    "no set with a smaller one in it": ([{"a", "b"}, {"a", "c"}], 2, [{"a"}, {"b", "c"}]),
}


@pytest.mark.parametrize("case", EXPLAINED)
def test_explanations_are_the_smallest_sets_that_have_a_member_in_each_unsound_sum(case):
    unsound, most, expected = EXPLAINED[case]
    found = explanations([frozenset(each) for each in unsound], most)
    assert {*found} == {frozenset(each) for each in expected}
