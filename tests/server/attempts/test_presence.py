"""Who is asked, who is not, when again, and what is said of those who are missing."""

import pytest

from common.secagg.refusals import Check
from server.attempts import presence as module
from server.attempts.presence import RETURNS_AT_ONCE, Presence
from server.attempts.retries import RetryRules
from server.study.journal_rows import AnswerRow
from server.study.waiting import Missing

SITES = ("east", "south", "west")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def time(self):
        return 1e9 + self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def presence(clock):
    made = Presence(SITES, RetryRules())
    made.look(SITES)
    return made


def answer(outcome, asked="order", site="south"):
    return AnswerRow(1, asked, site, outcome, 1, 1, 1.0)


def test_who_refuses_is_asked_at_a_public_schedule_that_grows_to_an_hour(presence, clock):
    pauses = []
    for _ in range(9):
        presence.note([answer("refused:R0.plan")])
        began = clock.now
        [missing] = presence.missing()
        assert not presence.is_due("south")
        clock.now = missing.asked_again_unix_s - 1e9
        assert presence.is_due("south")
        pauses.append(clock.now - began)
    assert pauses == [1, 4, 16, 64, 256, 1024, 3600, 3600, 3600]
    assert missing.since_unix_s == 1e9, "since its first refusal"
    presence.note([answer("taken")])
    assert presence.missing() == ()


OUTCOMES = {
    "a refusal of the order": ("refused:R0.contribution", "order", "R0.contribution"),
    "silence": ("timeout", "order", "silent"),
    "an answer much later than the others'": ("slow", "forward", "silent"),
    "a failure of its program": ("failed:5", "keylist", "failed"),
    "what is no answer of ours": ("rejected:content", "order", "failed"),
}


@pytest.mark.parametrize(("outcome", "asked", "why"), OUTCOMES.values(), ids=OUTCOMES)
def test_who_is_missing_is_said_with_the_reason_and_what_to_do(presence, outcome, asked, why):
    presence.note([answer(outcome, asked)])
    [missing] = presence.missing()
    assert (missing.site, missing.why) == ("south", why)
    assert missing.sentence.startswith("south ")
    assert missing.do in missing.sentence


def test_a_refusal_after_keys_is_no_reason_not_to_ask(presence):
    presence.note([answer("refused:R1.signatures", "keylist")])
    assert presence.is_due("south")


def test_who_comes_back_is_asked_at_once_but_not_for_ever(presence, clock):
    for turn in range(RETURNS_AT_ONCE + 5):
        presence.note([answer("refused:R0.plan")])
        presence.look(["east", "west"])
        assert presence.look(SITES) == ({"south"} if turn < RETURNS_AT_ONCE else set())
        assert presence.is_due("south") == (turn < RETURNS_AT_ONCE)
    presence.note([answer("taken", "certificate", "east")])
    presence.look(["east", "west"])
    assert presence.look(SITES) == {"south"}, "a round went through"


def test_go_on_makes_everybody_due(presence):
    for site in SITES:
        presence.note([answer("refused:R0.plan", site=site)])
    presence.ask_everybody()
    assert all(presence.is_due(site) for site in SITES)


@pytest.mark.parametrize("check", [check for check in Check if check.startswith(("R0.", "any.", "wire."))])
def test_every_refusal_of_an_order_has_a_sentence(check):
    assert str(check) in Missing("south", str(check), 0.0, 1).sentence
