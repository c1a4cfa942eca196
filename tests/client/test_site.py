"""Whole sites: real scans in encrypted caches, a real plan, a real server session, everything through the outbox."""

import numpy as np
import pytest

from client.consent.approval import withdraw_approval
from client.ledger.budget import EntryKind, Stratum
from client.ledger.errors import LedgerInvalidError
from client.ledger.ledger import Ledger
from common.secagg.refusals import Check
from common.secagg.stages import Kind


def test_what_the_coordinator_keeps_of_a_ledger_tells_an_older_copy_from_the_newest(rounds, study, sites, tmp_path):
    north = sites["north"].folder
    for file in (north.ledger, north.ledger.with_name(north.ledger.name + ".anchor")):
        (tmp_path / file.name).write_bytes(file.read_bytes())  # a backup of both, which the anchor cannot tell
    session = rounds.begin(study)
    rounds.run(session, sites)
    plan, head = study.plan.digest(), session.ledger_heads["north"]
    with Ledger.open(north.ledger, ceiling=20.0) as ledger:
        ledger.check_anchor(plan, head)
    older = Ledger.open(tmp_path / north.ledger.name, ceiling=20.0)
    with older, pytest.raises(LedgerInvalidError, match="an older copy was restored"):
        older.check_anchor(plan, head)


def test_four_hospitals_finish_a_private_round_on_their_scans(rounds, study, sites):
    opened = rounds.run(rounds.begin(study, round_number=2), sites)
    assert opened.participants == rounds.names
    assert np.isfinite(opened.total.decode_sum()).all()
    assert opened.total.meta.view(np.int64).any()  # round 2 scores the model of round 1
    for site in sites.values():
        [study_spent] = rounds.spending(site)
        assert study_spent.attempts == {1: EntryKind.SPENT}
        assert set(study_spent.events) == {Stratum.LABELLED, Stratum.VALIDATION}
        assert [link.entry["kind"] for link in site.outbox.links()] == [
            "keys",
            "shares",
            "masked",
            "consistent",
            "unmask",
        ]


def test_a_hospital_that_drops_out_does_not_stop_the_round(rounds, study, sites):
    assert rounds.run(rounds.begin(study), sites, silent=("south",)).dropped == ("south",)


def test_each_attempt_is_charged_again_and_repeats_nothing(rounds, study, sites):
    first = rounds.run(rounds.begin(study, attempt=1), sites)
    second = rounds.run(rounds.begin(study, attempt=2), sites)
    assert not np.array_equal(first.total.body_sum, second.total.body_sum)
    assert rounds.spending(sites["north"])[0].attempts == {1: EntryKind.SPENT, 2: EntryKind.SPENT}


def test_a_paused_site_takes_no_order_and_charges_nothing(rounds, study, sites):
    sites["north"].folder.paused.touch()
    assert rounds.refused_by(rounds.order_for(study, sites, "north")) is Check.R0_PLAN
    assert rounds.spending(sites["north"]) == []


def test_a_withdrawn_approval_stops_the_very_next_order(rounds, study, sites):
    rounds.run(rounds.begin(study), sites)
    withdraw_approval(sites["north"].folder, study.plan.digest(), approver="Dr north")
    assert rounds.refused_by(rounds.order_for(study, sites, "north", attempt=2)) is Check.R0_PLAN


def test_an_exhausted_budget_refuses_the_order_before_a_patient_is_read(rounds, study, sites):
    north = sites["north"].folder
    north.policy.write_text('format = "fedward-policy/1"\nepsilon_ceiling = 0.5\n')
    assert rounds.refused_by(rounds.order_for(study, sites, "north")) is Check.R0_CONTRIBUTION
    assert rounds.spending(sites["north"]) == []
    assert rounds.refused_by(rounds.order_for(study, sites, "north")) is Check.R0_ATTEMPT


def test_an_aborted_round_gives_the_reservation_back_while_nothing_left(rounds, study, sites):
    rounds.order_for(study, sites, "north", attempt=1)
    assert rounds.spending(sites["north"])[0].attempts == {1: EntryKind.RESERVED}
    rounds.order_for(study, sites, "north", attempt=2)
    assert rounds.spending(sites["north"])[0].attempts == {1: EntryKind.VOID, 2: EntryKind.RESERVED}


@pytest.mark.parametrize("message", [b"", b"\x00", b"x" * 10_000, b"\x91" * 300])
def test_what_is_no_order_is_refused_with_a_code(rounds, message, sites):
    assert rounds.refused_by(sites["north"].answer(Kind.ORDER, message, memoryview(b""))) is Check.R0_PLAN


def test_a_message_before_any_order_is_refused(rounds, sites):
    assert rounds.refused_by(sites["north"].answer(Kind.KEYLIST, b"hello", memoryview(b""))) is Check.R0_PLAN
