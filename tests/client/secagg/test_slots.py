"""Reply slots: neither the time of an answer nor any choice of deadlines tells training time finer than the slot."""

from pathlib import Path

import pytest

from client.secagg.slots import ReplySlots
from common.secagg.messages import Keylist, decode, encode
from common.secagg.refusals import Check
from common.secagg.stages import SITE_SENDS, Kind
from simulation.runtime.secagg_federation import NOW_S, new_federation

NAME, SLOT_S = "site-001", 600.0


def asked(folder: Path, training_s: float, deadlines_s: list[float]) -> tuple[list[str], list[float], list[float]]:
    """What a site answers to orders with these deadlines, when, and until when it lets each training go on."""
    federation, now = new_federation(4, folder, reply_slot_s=SLOT_S), [float(NOW_S)]
    site, work = federation.new_session(NAME, clock=lambda: now[0]), federation.work[NAME]
    draw, contribute, until = work.draw, work.contribute, []

    def slow(attempt):
        now[0] += training_s
        return draw(attempt)

    def noted(order, model, until_unix_s):
        until.append(until_unix_s - now[0])
        return contribute(order, model, until_unix_s)

    work.draw, work.contribute = slow, noted
    said, leaves = [], []
    for deadline_s in deadlines_s:
        came_s = now[0]
        packet = federation.sign_order(federation.new_order(deadline_unix_s=int(came_s + deadline_s)))
        answer = site.receive(packet.message, packet.payload)
        kind, message = decode(answer.message, SITE_SENDS)
        said.append("keys" if kind is Kind.KEYS else message.check.value)
        leaves.append(now[0] + answer.delay_s - came_s)
        if kind is Kind.KEYS:  # the attempt is given back, so that asking costs nothing
            site.receive(encode(Keylist(order_digest=message.order_digest, entries=(message,))))
        now[0] = came_s
    return said, leaves, until


def test_no_order_of_deadlines_measures_training_finer_than_the_slot(tmp_path):
    deadlines_s = [64, 128, 137, 138, 192, 599, 601, 700, 1200, 1201, 1300, 3000]
    answers = []
    for training_s in (1.0, 137.0):
        (tmp_path / str(training_s)).mkdir()
        answers.append(asked(tmp_path / str(training_s), training_s, deadlines_s))
    first, second = answers
    assert first == second, "one slot or less: 1 s and 137 s are answered alike"
    said, leaves, until = second
    late = [Check.R0_DEADLINE.value]
    assert said == late * 6 + ["keys"] * 6, "without a whole slot before the deadline nothing is trained"
    assert leaves == [0.0] * 6 + [SLOT_S] * 6
    assert until == [598.0, 598.0, 598.0, 1198.0, 1198.0, 2398.0], "killed at multiples of the slot less a margin"


def test_training_that_needs_a_second_slot_is_late_by_slots_and_not_by_its_own_time(tmp_path):
    said, leaves, _ = asked(tmp_path, 700.0, [701, 1200, 1201, 1900])
    assert said == [Check.ANY_DEADLINE.value, Check.ANY_DEADLINE.value, "keys", "keys"]
    assert leaves == [1200.0] * 4


@pytest.mark.parametrize(
    ("deadline_s", "has_one", "until_s"),
    [(599, False, None), (600, False, None), (601, True, 598.0), (1200, True, 598.0), (1201, True, 1198.0)],
)
def test_the_last_slot_ends_before_the_deadline(deadline_s, has_one, until_s):
    slots = ReplySlots(1000.0, SLOT_S, 1000.0 + deadline_s)
    assert slots.has_one == has_one
    assert until_s is None or slots.train_until_s - 1000.0 == until_s


def test_a_short_slot_keeps_a_quarter_and_no_slot_keeps_the_deadline():
    assert ReplySlots(0.0, 4.0, 9.0).train_until_s == 7.0
    assert ReplySlots(0.0, 0.0, 9.0).train_until_s == 9.0
    assert ReplySlots(0.0, 0.0, 9.0).leaves_at_s(3.3) == 3.3
