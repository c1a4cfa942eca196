"""Hospitals that send garbage, or wrong shares, so that somebody else is suspected: whole runs with real sessions."""

import pytest

from common.trust.hash_chain import HashChain
from server.attempts.telling import tell_people
from server.federation.admission import AUDIT_NAME
from server.status_page.facts import StudyReader
from server.status_page.page import study_page
from server.study.events import LoggedEvents, RunState
from server.study.folder import open_study
from server.study.history import attempt_records
from server.study.journal_rows import SuspicionKind, SuspicionRow
from server.study.progress import open_journal
from server.study.status import study_status
from simulation.attacks.lying_sites import GarbageSite, WrongShareSite, always, beside
from simulation.runtime.faults import Fault, Trouble

LONG = {"rounds": 8, "maximum_attempts": 60}


def corrupt(federation, name, kind=GarbageSite, when=always):
    federation.sessions[name] = kind(federation.sessions[name], federation.keys[name], when)


def told(federation):
    """What the journal of a run says: attempts, suspicions, status."""
    study = open_study(federation.study)
    journal = open_journal(study)
    return attempt_records(study, journal), journal.suspicions(), study_status(study, journal)


@pytest.mark.parametrize(("sites", "victim"), [(4, "site-1"), (5, "site-1"), (5, "site-3"), (8, "site-2")])
def test_a_site_that_sends_garbage_only_beside_its_victim_does_not_have_it_expelled(make_federation, sites, victim):
    federation, liar = make_federation(sites, short=LONG), f"site-{sites}"
    corrupt(federation, liar, when=beside(victim))
    assert federation.run().state is RunState.FINISHED
    records, (row,), status = told(federation)
    assert sum(record.outcome == "aborted" for record in records) <= sites + 2
    assert (row.kind, {*row.groups}) == (SuspicionKind.MUTUAL, {(victim,), (liar,)})
    applied = [record.ordered for record in records if record.applied]
    named = [order.cohort for order in applied if order.attempt > row.attempt]
    # from then on one of the two is left out, in turn
    assert [victim in cohort for cohort in named] == [liar not in cohort for cohort in named]
    assert abs(sum(victim in cohort for cohort in named) - sum(liar in cohort for cohort in named)) <= 1
    (shown,) = status["suspicions"]
    assert shown["holds"]
    assert victim in shown["why"]
    assert liar in shown["why"]
    assert (shown["since_attempt"], shown["until_attempt"]) == (row.attempt + 1, row.until_attempt)
    page = study_page("lungs", StudyReader(federation.study).read(), None, alone=True)
    assert row.sentence in page


class StopAfter(LoggedEvents):
    """Asks to stop after some rounds."""

    def __init__(self, rounds):
        self.left = rounds

    def on_round(self, end):
        self.left -= 1

    def should_stop(self):
        return self.left <= 0


def test_who_is_left_out_stays_so_over_a_restart_and_comes_back_when_it_is_time(make_federation):
    federation = make_federation(4, short={"rounds": 22, "maximum_attempts": 90})
    corrupt(federation, "site-3")
    few = StopAfter(5)
    federation.run(events=few, should_stop=few.should_stop)
    federation.start_sites()  # and site-3 is honest again
    assert federation.run().state is RunState.FINISHED
    records, (row,), status = told(federation)
    assert (row.kind, row.groups) == (SuspicionKind.RESTS, (("site-3",),))
    after = [record.ordered for record in records if record.ordered.attempt > row.attempt]
    assert [("site-3" in order.cohort) for order in after] == [order.attempt >= row.until_attempt for order in after]
    assert after[-1].attempt > row.until_attempt
    assert not status["suspicions"][0]["holds"]


def test_wrong_shares_that_no_subset_mends_are_searched_for_like_garbage(make_federation):
    federation = make_federation(5, short=LONG)
    corrupt(federation, "site-2", WrongShareSite)
    faults = Fault(Trouble.DROP, sites=("site-4",), actions=("certificate",), attempts=(1, 2, 3))  # no share to spare
    assert federation.run(faults).state is RunState.FINISHED
    records, _, status = told(federation)
    assert 1 <= sum(status["aborted"].values()) <= 8
    assert records[-1].applied


def test_a_conclusion_is_in_the_federations_audit_log_with_names_attempts_and_reason(make_federation):
    federation = make_federation(4)
    study_folder = federation.path / "studies" / "study"
    study_folder.parent.mkdir()
    federation.study.rename(study_folder)
    (federation.path / "coordinator.toml").touch()
    study = open_study(study_folder)
    journal = open_journal(study)
    number = journal.record_attempt(phase=0, round_number=1, cohort=("site-1",), model_digest=bytes(32))
    row = SuspicionRow(number, SuspicionKind.MUTUAL, (("site-1",), ("site-4",)), number + 17, "sums are sound without")
    tell_people(study, journal, row)
    (entry,) = [link.entry for link in HashChain(federation.path / "audit.chain", AUDIT_NAME).links()]
    assert entry | {"time": 0} == {
        "what": "mutual suspicion",
        "time": 0,
        "study": "small",
        "sites": "site-1, site-4",
        "since_attempt": number + 1,
        "until_attempt": number + 17,
        "why": "sums are sound without",
    }
