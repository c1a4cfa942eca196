"""Attempts that are charged, slots that phases lend each other, and the limit on orders."""

import itertools

import pytest

from common.plan.attempts import Slots, fit, may_order, most_orders, slots_of
from common.plan.phases import Phase


def phase(**changes):
    facts = {
        "name": "one", "rounds": 2, "maximum_attempts": 4, "labelled_sampling_rate": 0.5, "noise_multiplier": 2.0,
        "layout_hash": "0" * 64,
    }  # fmt: skip
    return Phase(**(facts | changes))


class Plan:
    """As much of a plan as the counting reads."""

    def __init__(self, *phases):
        self.phases = phases


def lenders(one, other):
    """Tell whether the first phase lends to the second, and the second to the first."""
    slots = slots_of(Plan(phase(**one), phase(**{"name": "two"} | other)))
    return bool(slots[1].lenders), bool(slots[0].lenders)


METHOD = {"method": "fixmatch", "unlabelled_sampling_rate": 0.5}
# what the first and the second phase have -> does the first lend to the second, and the other way round?
LENDS = {
    "equal phases lend to each other": ({}, {}, (True, True)),
    "less noise lends to more noise": ({}, {"noise_multiplier": 3.0}, (True, False)),
    "more patients a step lend to fewer": ({}, {"labelled_sampling_rate": 0.4}, (True, False)),
    "more steps lend to fewer": ({"local_steps": 3}, {}, (True, False)),
    "fewer patients under less noise and more under more: neither": (
        {"labelled_sampling_rate": 0.4},
        {"noise_multiplier": 3.0},
        (False, False),
    ),
    "whoever reads unlabelled patients too lends to labelled only": (METHOD, {}, (True, False)),
    "unlabelled patients face the noise over their own clip": (
        METHOD,
        METHOD | {"unlabelled_clip_ratio": 0.2},
        (False, True),
    ),
    "without noise nobody lends": ({"noise_multiplier": 0.0}, {"noise_multiplier": 0.0}, (False, False)),
}


@pytest.mark.parametrize(("one", "other", "expected"), LENDS.values(), ids=LENDS)
def test_a_phase_lends_only_to_one_that_costs_no_patient_more(one, other, expected):
    assert lenders(one, other) == expected


def finds_slots(counts, slots):
    """Try every way to place the attempts, one by one."""
    own = [each.own for each in slots]
    lent = [each.lent for each in slots]

    def place(attempts):
        if not attempts:
            return True
        index, *rest = attempts
        for slot in {index, *slots[index].lenders}:
            used = slot == index or lent[slot] > own_lent[slot]
            if own[slot] > 0 and used:
                own[slot] -= 1
                own_lent[slot] += slot != index
                if place(rest):
                    return True
                own[slot] += 1
                own_lent[slot] -= slot != index
        return False

    own_lent = [0] * len(slots)
    return place([index for index, count in enumerate(counts) for _ in range(count)])


ARRANGEMENTS = [
    (Slots(2, 2, frozenset({1})), Slots(1, 1), Slots(2, 1, frozenset({0}))),
    (Slots(1, 1, frozenset({1, 2})), Slots(2, 2, frozenset({2})), Slots(1, 1)),
    (Slots(2), Slots(2), Slots(1)),
    (Slots(1, 1, frozenset({1})), Slots(1, 1, frozenset({2})), Slots(1, 1, frozenset({0}))),
]


@pytest.mark.parametrize("slots", ARRANGEMENTS)
def test_attempts_fit_only_where_each_finds_a_slot_of_its_own(slots):
    """Where some slots are not lent, the rule may refuse what would fit; it never lets pass what does not."""
    is_exact = all(each.lent == each.own or not each.lent for each in slots)
    for counts in itertools.product(range(5), repeat=3):
        assert fit(counts, slots) == finds_slots(counts, slots) or not (is_exact or fit(counts, slots)), counts


def test_spare_attempts_are_pooled_but_every_later_round_keeps_one():
    plan = Plan(phase(rounds=2, maximum_attempts=3), phase(name="two", rounds=3, maximum_attempts=5))
    assert may_order(plan, [3, 0], 0), "the second phase lends its spare: 5 slots, 3 rounds and the closing one"
    assert not may_order(plan, [4, 0], 0), "or the second phase could not be finished"
    assert may_order(plan, [2, 5], 1), "the first phase left one over"
    assert not may_order(plan, [2, 6], 1)
    assert not may_order(plan, [4, 4], 1)


def test_a_phase_that_costs_more_takes_nothing_from_one_that_costs_less():
    plan = Plan(phase(noise_multiplier=9.0, maximum_attempts=9), phase(name="two", maximum_attempts=4))
    assert may_order(plan, [2, 3], 1)
    assert not may_order(plan, [2, 4], 1)
    assert may_order(plan, [9, 0], 0)


def test_the_closing_attempt_of_ridge_is_lent_to_nobody():
    ridge = phase(
        name="two", method="ridge", trainable="head", rounds=1, maximum_attempts=3, unlabelled_sampling_rate=0.5
    )
    assert slots_of(Plan(phase(), ridge))[1] == Slots(3, 2)


def test_orders_are_limited_generously():
    assert most_orders(Plan(phase(), phase(name="two"))) == 20 * 8 + 1000
