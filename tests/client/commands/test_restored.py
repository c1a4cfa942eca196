"""`fedward-site restored`: a journal from a backup is told which attempts are over."""

from contextlib import closing

import pytest

from client.commands.restored import restored
from client.consent.approval import approve
from client.installation.audit_log import audit_links
from client.installation.errors import NotEnrolledError
from client.secagg.journal import SiteJournal


def test_after_a_restore_no_forgotten_attempt_is_taken_again_and_it_is_written_down(north, signed_plan, capsys):
    digest = approve(north, signed_plan, approver="Dr Rao").plan.digest()
    with closing(SiteJournal(north.journal)) as journal:
        journal.record_attempt(bytes.fromhex(digest), 0, 3)
    restored(digest, last_attempt=41, by="Dr Rao", site_folder=north.path)
    assert "attempts up to 41" in capsys.readouterr().out
    with closing(SiteJournal(north.journal)) as journal:
        assert not journal.record_attempt(bytes.fromhex(digest), 0, 41)
        assert journal.record_attempt(bytes.fromhex(digest), 0, 42)
    entry = list(audit_links(north))[-1].entry
    assert (entry["what"], entry["person"], entry["attempt"], entry["plan"]) == ("restored", "Dr Rao", 41, digest)


def test_a_lower_number_forbids_nothing_less(north, signed_plan):
    digest = approve(north, signed_plan, approver="Dr Rao").plan.digest()
    restored(digest, last_attempt=41, by="Dr Rao", site_folder=north.path)
    restored(digest, last_attempt=7, by="Dr Rao", site_folder=north.path)
    with closing(SiteJournal(north.journal)) as journal:
        assert journal.last_attempt(bytes.fromhex(digest)) == 41


@pytest.mark.parametrize("digest", ["0" * 64, "not a digest", "../../etc"])
def test_a_plan_that_is_not_approved_is_refused(north, digest):
    with pytest.raises(NotEnrolledError, match="no such plan"):
        restored(digest, last_attempt=41, site_folder=north.path)
    assert not north.journal.exists()
