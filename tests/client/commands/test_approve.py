"""approve: what a person reads before saying yes, who said it, and that nothing happens without."""

import json
import os
import pty
import subprocess
import sys
from contextlib import closing

import pytest

from client.consent.approval import approved_plans
from client.consent.errors import NotConfirmedError, PolicyRefusedError
from client.dicom.cache import Cache
from client.dicom.errors import CacheInvalidError
from client.installation.audit_log import audit
from client.installation.errors import NotEnrolledError
from client.ledger.budget import Stratum
from client.ledger.ledger import Ledger, charge
from client.secagg.journal import SiteJournal
from common.errors import ExitCode
from common.plan.errors import PlanInvalidError
from common.plan.guarantee import guarantee, seen_by
from common.plan.reading import read_plan
from common.trust.errors import ChainBrokenError
from common.trust.hash_chain import HashChain
from common.trust.identity import read_secret_file

CONFIRMED = ("--approver", "Dr A. Meyer", "--yes")
ANOTHER_STUDY = "ab" * 32


@pytest.fixture
def approve(asked, stocked, plan_file):
    return lambda *options: asked("approve", plan_file, "--site-folder", stocked.path, *options)


def audit_entries(site):
    """What the audit log says beside who was called (``test_confirm.py``)."""
    links = HashChain(site.audit, "audit").links() if site.audit.exists() else []
    return [link.entry for link in links if link.entry["what"] != "confirmed"]


def test_a_plan_confirmed_by_a_named_person_is_approved_and_its_patients_are_fixed(approve, stocked, plan_file):
    told = approve(*CONFIRMED)
    digest = read_plan(plan_file).digest()
    assert (told["approved"], told["approver"], told["digest"]) == (True, "Dr A. Meyer", digest)
    assert list(approved_plans(stocked)) == [digest]
    assert len(Cache.open(stocked.cache, read_secret_file(stocked.secret)).frozen(digest).patients()) == 90


def test_the_audit_log_says_who_confirmed_the_roster_and_who_approved(approve, stocked, plan_file, roster):
    approve(*CONFIRMED)
    *confirmed, approved = (link.entry for link in HashChain(stocked.audit, "audit").links())
    assert [(entry["what"], entry["person"], entry["roster"]) for entry in confirmed] == [
        ("confirmed", "Dr A. Meyer", roster.digest())
    ] * 3
    assert (approved["what"], approved["approver"]) == ("approved", "Dr A. Meyer")
    assert approved["plan"] == read_plan(plan_file).digest()


def test_the_facts_alone_approve_nothing(approve, stocked):
    assert approve()["approved"] is False
    assert audit_entries(stocked) == []


def test_the_facts_hold_what_is_asked_what_leaves_what_it_costs_and_who_else(approve, plan_file, roster):
    told, plan = approve(), read_plan(plan_file)
    bought, seen = guarantee(plan), seen_by(plan)
    assert told["privacy"]["bought"]["epsilon"] == bought.epsilon
    assert told["privacy"]["epsilon_seen_by"]["hospital"] == seen.hospital
    assert told["ledger"] == {
        "ceiling": 8.0,
        "before": 0.0,
        "after": pytest.approx(bought.epsilon, rel=0.02),
        "fits": True,
    }
    assert told["others"] == {n: f for n, f in roster.fingerprints().items() if n != "north"}
    assert "scans" in told["leaves_a_site"]["never"]
    assert told["patients_here"] == {"labelled": 70, "unlabelled": 20}


def test_the_page_for_people_shows_the_same(site_command, stocked, plan_file, roster):
    plan = read_plan(plan_file)
    page = " ".join(site_command("approve", plan_file, "--site-folder", stocked.path, *CONFIRMED).split())
    assert plan.digest() in page
    assert f"epsilon = {guarantee(plan).epsilon:.3f}" in page
    for name, text in roster.fingerprints().items():
        assert (text in page) == (name != "north")
    for words in ("70 labelled", "never", "spent after this study", "4 hospitals, 3 at least in every sum"):
        assert words in page, words


def spend_elsewhere(folder):
    spent = charge(Stratum.LABELLED, sampling_rate=0.5, noise_multiplier=1.0, steps=20)
    audit(folder, {"what": "approved", "plan": ANOTHER_STUDY, "approver": "Dr Rao", "time": 1})
    with closing(SiteJournal(folder.journal)) as journal:
        assert journal.record_attempt(bytes.fromhex(ANOTHER_STUDY), 0, 1)
    with Ledger.open(folder.ledger, ceiling=100.0) as ledger:
        ledger.reserve(ANOTHER_STUDY, 1, [spent], delta=1e-5)


def test_what_other_studies_spent_is_in_the_budget(approve, stocked):
    spend_elsewhere(stocked)
    told = approve()["ledger"]
    assert 0 < told["before"] < told["after"]
    assert told["fits"] is False


def test_a_plan_that_will_meet_the_ceiling_carries_a_note(site_command, stocked, plan_file):
    spend_elsewhere(stocked)
    page = site_command("approve", plan_file, "--site-folder", stocked.path, *CONFIRMED)
    assert "the ledger will stop this study before its end" in page


INCOMPLETE = {
    "no name": ("--yes",),
    "no yes": ("--approver", "Dr A. Meyer"),
    "nothing": (),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_without_a_terminal_every_confirmation_must_be_given(case, site_command, stocked, plan_file):
    with pytest.raises(NotConfirmedError, match="nobody to ask"):
        site_command("approve", plan_file, "--site-folder", stocked.path, *INCOMPLETE[case])
    assert audit_entries(stocked) == []
    assert approved_plans(stocked) == {}


@pytest.mark.parametrize("name", ["", "  ", "Meyer\x1b[2J", "x" * 101])
def test_a_person_has_a_printable_name(name, approve, stocked):
    with pytest.raises(PlanInvalidError, match="approver's name"):
        approve("--approver", name, "--yes")
    assert audit_entries(stocked) == []


ANSWERS = {
    "everything confirmed": (["Dr B. Kaya", "xray-study"], ExitCode.OK),
    "another study typed": (["Dr B. Kaya", "y"], ExitCode.NOT_CONFIRMED),
}


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[pytest.mark.slow] if code else []) for name, (_, code) in ANSWERS.items()]
)
def test_on_a_terminal_each_confirmation_is_asked_for(case, stocked, plan_file):
    typed, code = ANSWERS[case]
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "client", "approve", str(plan_file), "--site-folder", str(stocked.path)],
        stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.write(controller, "".join(f"{line}\n" for line in typed).encode())
    _, said = process.communicate(timeout=300)
    os.close(controller)
    os.close(terminal)
    assert process.returncode == code, said
    names = [entry.get("approver") for entry in audit_entries(stocked) if entry["what"] == "approved"]
    assert names == (["Dr B. Kaya"] if code == 0 else [])


def test_without_scans_nothing_is_approved(asked, stocked, plan_file):
    stocked.cache.rename(stocked.path / "elsewhere")
    with pytest.raises(CacheInvalidError, match="fedward-site ingest"):
        asked("approve", plan_file, "--site-folder", stocked.path, *CONFIRMED)
    assert approved_plans(stocked) == {}


def test_scans_read_for_another_size_are_no_patients_of_this_plan(asked, stocked, signed_plan):
    with pytest.raises(CacheInvalidError, match="another task or image size"):
        asked("approve", signed_plan, "--site-folder", stocked.path, *CONFIRMED)


def test_a_plan_against_the_policy_is_not_even_shown(site_command, stocked, plan_file):
    stocked.policy.write_text('format = "fedward-policy/1"\nmaximum_epsilon = 1.0\n')
    with pytest.raises(PolicyRefusedError, match="policy rule 2"):
        site_command("approve", plan_file, "--site-folder", stocked.path, *CONFIRMED)


def test_an_approval_is_taken_back_by_a_named_person(approve, asked, stocked):
    digest = approve(*CONFIRMED)["digest"]
    words = ("--site-folder", stocked.path, "--approver", "Dr B. Kaya", "--yes")
    assert asked("approve", "--withdraw", digest[:12], *words) == {"withdrawn": digest, "approver": "Dr B. Kaya"}
    assert approved_plans(stocked) == {}
    assert audit_entries(stocked)[-1]["what"] == "withdrawn"


@pytest.mark.parametrize("digest", ["", "..", "0000000", "f" * 64, "../.."])
def test_what_is_not_approved_cannot_be_taken_back(digest, approve, asked, stocked):
    approve(*CONFIRMED)
    with pytest.raises(NotEnrolledError, match="approved plans begin with"):
        asked("approve", "--withdraw", digest, "--site-folder", stocked.path, "--approver", "X", "--yes")
    assert len(approved_plans(stocked)) == 1


def test_the_audit_command_shows_and_verifies_every_line(approve, asked, site_command, stocked):
    digest = approve(*CONFIRMED)["digest"]
    told = asked("audit", "--site-folder", stocked.path)
    assert told["lines"] == 4
    assert (told["entries"][3]["plan"], told["entries"][3]["hash"]) == (digest, told["head"])
    assert told["head"] in site_command("audit", "--site-folder", stocked.path, "--verify")
    page = site_command("audit", "--site-folder", stocked.path)
    assert "Dr A. Meyer" in page
    assert digest[:12] in page


def test_an_audit_log_that_was_changed_is_noticed(approve, site_command, stocked):
    approve(*CONFIRMED)
    stocked.audit.write_bytes(stocked.audit.read_bytes().replace(b"Meyer", b"Mayer"))
    with pytest.raises(ChainBrokenError):
        site_command("audit", "--site-folder", stocked.path, "--verify")


def test_a_site_without_an_audit_log_has_decided_nothing(asked, north):
    assert asked("audit", "--site-folder", north.path) == {"head": "0" * 64, "lines": 0, "entries": []}


def test_the_facts_are_json_without_surprises(approve):
    assert json.loads(json.dumps(approve())) is not None


def test_what_others_wrote_cannot_disturb_the_terminal(site_command, stocked):
    audit(stocked, {"what": "paused", "person": "[red]\x1b[2J Mallory", "time": 0})
    page = site_command("audit", "--site-folder", stocked.path)
    assert "\x1b" not in page
    assert "[red]?[2J Mallory" in page
