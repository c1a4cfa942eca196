"""The tables themselves: complete, without a way around a stage, and the same on both sides."""

import pytest

from common.secagg.messages import MESSAGES
from common.secagg.refusals import CHECK_OF_CODE, TABLE, Check, CheckSet
from common.secagg.stages import (
    SERVER_TRANSITIONS,
    SITE_RECEIVES,
    SITE_SENDS,
    SITE_TRANSITIONS,
    Kind,
    ServerStage,
    SiteStage,
    site_transition,
)

FORWARD_ONLY = [
    SiteStage.IDLE,
    SiteStage.KEYED,
    SiteStage.SHARED,
    SiteStage.MASKED,
    SiteStage.CONSISTENT,
    SiteStage.UNMASKED,
    SiteStage.DONE,
]


def test_a_site_goes_one_stage_forward_at_a_time_or_starts_again() -> None:
    for (stage, kind), step in SITE_TRANSITIONS.items():
        if kind is Kind.ORDER:
            assert step.goes_to is SiteStage.KEYED
        else:
            assert FORWARD_ONLY.index(step.goes_to) == FORWARD_ONLY.index(stage) + 1


def test_a_dead_or_finished_site_takes_nothing_but_an_order() -> None:
    for stage in (SiteStage.DEAD, SiteStage.DONE, SiteStage.IDLE):
        assert [kind for kind in Kind if site_transition(stage, kind)] == [Kind.ORDER]


def test_each_answer_of_a_site_is_what_the_server_collects_next() -> None:
    sent = Kind.ORDER
    for step in SERVER_TRANSITIONS.values():
        answers = {each.answer for (_, kind), each in SITE_TRANSITIONS.items() if kind is sent}
        assert answers == {step.collects}
        if step.sends is not None:
            sent = step.sends


def test_the_server_opens_the_sum_once_at_the_end() -> None:
    assert [stage for stage, step in SERVER_TRANSITIONS.items() if step.sends is None] == [
        ServerStage.WAITING_FOR_UNMASK
    ]
    assert {ServerStage.FINISHED, ServerStage.ABORTED}.isdisjoint(SERVER_TRANSITIONS)


def test_every_kind_of_message_has_one_direction_and_a_form() -> None:
    assert set(Kind) == SITE_RECEIVES | SITE_SENDS == set(MESSAGES)
    assert not SITE_RECEIVES & SITE_SENDS


def test_every_check_has_a_row_and_a_code_of_its_own() -> None:
    assert set(TABLE) == set(Check)
    assert len(CHECK_OF_CODE) == len(TABLE)
    assert all(row.stops for row in TABLE.values())


@pytest.mark.parametrize("unknown", ["R9.nothing", ""])
def test_an_unknown_check_cannot_be_switched_off(unknown: str) -> None:
    with pytest.raises(ValueError, match=unknown or "not a valid"):
        CheckSet(without={unknown})


def test_a_fault_of_ones_own_cannot_be_switched_off() -> None:
    with pytest.raises(ValueError, match="own"):
        CheckSet(without={Check.ANY_INTERNAL})
