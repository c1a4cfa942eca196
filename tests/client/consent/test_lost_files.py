"""A file whose loss loosens a promise never begins again by itself: one rule, and what each file's loss comes to."""

import gc
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.__main__ import app
from client.consent.approval import approve, withdraw_approval
from client.consent.continuity.errors import RecordLostError, StudyEndedError
from client.consent.continuity.files import PRICES, Lost, files_of
from client.consent.continuity.losses import losses
from client.consent.continuity.opting_out import keep_opt_outs
from client.dicom.cache_folder import open_folder
from client.dicom.opt_outs import OptOuts
from client.dicom.withdrawals import opt_out
from client.doctor import membership
from client.doctor.findings import Level
from client.installation.audit_log import audit_links, standing_approvals
from client.installation.folder import SiteFolder
from client.ledger.budget import Stratum
from client.ledger.errors import LedgerInvalidError
from client.ledger.ledger import Ledger
from client.site import Site
from client.status_page.facts import SiteReader
from client.status_page.page import site_page
from common.plan.errors import PlanInvalidError
from common.plan.guarantee import guarantee
from common.secagg.refusals import Check
from common.trust.identity import create_secret_file, read_secret_file
from server.study.folder import open_study

PERSON, REASON = "Dr Mina Rao", "the disk died and no backup opens"


@pytest.fixture(scope="module")
def two_rounds(prepared, rounds, tmp_path_factory) -> Path:
    """Everything of a federation after two attempts; east's files after the first lie in ``first``."""
    root = shutil.copytree(prepared, tmp_path_factory.mktemp("used") / "study")
    study = open_study(root / "coordinator")
    sites = {name: Site.open(root / name) for name in rounds.names}
    rounds.run(rounds.begin(study, attempt=1), sites)
    shutil.copytree(root / "east", root / "first")
    rounds.run(rounds.begin(study, attempt=2), sites)
    del sites
    gc.collect()  # their journals close now, or a file goes while the folder is copied
    return root


@pytest.fixture
def used(two_rounds, tmp_path) -> Path:
    return shutil.copytree(two_rounds, tmp_path / "study")


@pytest.fixture
def east(used) -> SiteFolder:
    folder = SiteFolder(used / "east")
    folder.config.write_text('format = "fedward-site/1"\n[site]\nname = "east"\n')
    return folder


@pytest.fixture
def plan(used):
    return open_study(used / "coordinator").plan


def command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def decide(folder: SiteFolder, lost: Lost, *options: object) -> dict:
    words = ("--by", PERSON, "--reason", REASON, "--yes", "--json", "--site-folder", folder.path)
    return json.loads(command("begin-again", lost, *words, *options))


def lose(folder: SiteFolder, lost: Lost) -> None:
    for file in files_of(folder, lost):
        file.unlink(missing_ok=True)


def put_back(folder: SiteFolder, lost: Lost) -> None:
    """Restore the file alone from the copy made after the first attempt."""
    lose(folder, lost)
    for file in files_of(SiteFolder(folder.path.parent / "first"), lost):
        if file.exists():
            shutil.copy2(file, folder.path / file.name)


def lost_ones(folder: SiteFolder) -> set[Lost]:
    return {loss.lost for loss in losses(folder)}


def test_a_site_in_order_has_lost_nothing(east, used):
    assert losses(east) == []
    assert losses(SiteFolder(used / "first")) == [], "a whole copy is consistent: only the coordinator's head shows it"


RECORDS = (Lost.LEDGER, Lost.JOURNAL, Lost.OUTBOX, Lost.AUDIT)


@pytest.mark.parametrize("lost", RECORDS)
def test_without_one_of_its_records_a_site_takes_part_in_nothing_and_says_what_to_do(lost, east):
    lose(east, lost)
    assert lost in lost_ones(east)
    for _ in range(2):  # looking makes nothing begin again
        with pytest.raises(RecordLostError, match=f"begin-again {lost} --by NAME --reason TEXT"):
            Site.open(east.path)


@pytest.mark.parametrize("lost", [Lost.LEDGER, Lost.JOURNAL, Lost.OUTBOX])
def test_an_older_copy_of_one_record_alone_is_noticed(lost, east):
    put_back(east, lost)
    assert lost in lost_ones(east)
    with pytest.raises(RecordLostError):
        Site.open(east.path)


@pytest.mark.parametrize("more", [(), (Lost.JOURNAL,), (Lost.OUTBOX,)])
def test_a_whole_and_empty_ledger_of_another_site_is_no_ledger_of_this_one(more, east, tmp_path):
    Ledger.create(tmp_path / "ledger.sqlite").close()
    for lost in (Lost.LEDGER, *more):
        lose(east, lost)
    for name in ("ledger.sqlite", "ledger.sqlite.anchor"):
        shutil.copy2(tmp_path / name, east.path / name)
    assert Lost.LEDGER in lost_ones(east)
    with pytest.raises(RecordLostError):
        Site.open(east.path)


def test_an_audit_log_from_before_the_last_approval_is_noticed(east, used):
    first_line = east.audit.read_bytes().splitlines(keepends=True)[0]
    approve(east, used / "coordinator" / "study.toml", approver="Dr East")
    for content in (b"", first_line[:0]):
        east.audit.write_bytes(content)
        assert Lost.AUDIT in lost_ones(east)
    east.audit.unlink()
    approve(east, used / "coordinator" / "study.toml", approver="Somebody Else")  # a fresh log with the approval in it
    assert lost_ones(east) == {Lost.AUDIT}, "the ledger saw another line there"


@pytest.mark.parametrize("more", [(), RECORDS[1:3], RECORDS[2:], (Lost.JOURNAL, Lost.AUDIT)])
def test_no_combination_of_lost_records_lets_a_ledger_begin_at_zero(more, east):
    for lost in (Lost.LEDGER, *more):
        lose(east, lost)
    with pytest.raises(LedgerInvalidError, match="never begins again at zero"):
        command("ledger", "--create", "--site-folder", east.path)
    assert not east.ledger.exists()
    with pytest.raises(RecordLostError):
        Site.open(east.path)


def test_a_lost_ledger_charges_every_study_ever_approved_its_full_promise_and_ends_it(rounds, used, east, plan):
    with Ledger.open(east.ledger, ceiling=20.0) as ledger:
        spent = ledger.epsilon()
    lose(east, Lost.LEDGER)
    assert decide(east, Lost.LEDGER) == {
        "file": "ledger",
        "price": PRICES[Lost.LEDGER],
        "studies": [plan.digest()],
    }
    promised = guarantee(plan)
    with Ledger.open(east.ledger, ceiling=20.0) as ledger:
        [study] = ledger.spending()
        assert ledger.epsilon() == pytest.approx(promised.epsilon)
        assert ledger.epsilon() > spent
    for stratum in Stratum:
        assert study.epsilon(stratum) == pytest.approx(getattr(promised, stratum.value), rel=1e-3)
    assert losses(east) == []
    sites = {name: Site.open(used / name) for name in rounds.names}
    refused = rounds.order_for(open_study(used / "coordinator"), sites, "east", attempt=3)
    assert rounds.refused_by(refused) is Check.R0_CONTRIBUTION
    with Ledger.open(east.ledger, ceiling=20.0) as ledger:
        assert ledger.epsilon() == pytest.approx(promised.epsilon), "nothing more is spent, whatever is ordered"


def test_a_study_whose_approval_was_taken_back_is_charged_too(east, plan):
    withdraw_approval(east, plan.digest(), approver="Dr East")
    lose(east, Lost.LEDGER)
    assert decide(east, Lost.LEDGER)["studies"] == [plan.digest()]


def test_a_study_of_the_version_before_whose_plan_is_gone_must_be_brought_back(used, east, plan, monkeypatch):
    entries = [{k: v for k, v in link.entry.items() if k not in {"promise", "delta"}} for link in audit_links(east)]
    lose(east, Lost.AUDIT)
    for entry in entries:  # as that version wrote it
        from client.installation.audit_log import audit  # noqa: PLC0415

        audit(east, entry)
    lose(east, Lost.LEDGER)
    shutil.rmtree(east.plans)
    with pytest.raises(RecordLostError, match=f"{plan.digest()}.*--plan FILE"):
        decide(east, Lost.LEDGER)
    assert decide(east, Lost.LEDGER, "--plan", used / "coordinator" / "study.toml")["studies"] == [plan.digest()]


@pytest.mark.parametrize("lost", RECORDS)
def test_what_a_named_person_decided_is_shown_for_ever_by_page_check_and_both_records(lost, east, plan):
    lose(east, lost)
    decide(east, lost)
    assert losses(east) == []
    Site.open(east.path)
    lines = [link.entry for link in audit_links(east) if link.entry["what"] == "begun again"]
    assert [(line["file"], line["person"], line["reason"]) for line in lines] == [(lost, PERSON, REASON)]
    for other in {Lost.AUDIT, Lost.LEDGER} - {lost}:  # even when the other of the two is lost later
        lose(east, other)
        decide(east, other)
    reader = SiteReader(east, "east")
    reader.read()
    reader.wait(60)
    shown = site_page(reader.read(), form_token="t")
    told = CliRunner().invoke(app, ["check", "--site-folder", str(east.path), "--offline", "--json"]).stdout
    for text in (shown, told):
        assert PERSON in text
        assert REASON in text
    found = [each["text"] for each in json.loads(told)["findings"] if each["name"] == "lost files"]
    assert sum(text.startswith(f"{lost} began again") for text in found) == 1


def test_a_lost_journal_ends_the_studies_whose_attempts_it_held(rounds, used, east):
    lose(east, Lost.JOURNAL)
    decide(east, Lost.JOURNAL)
    sites = {name: Site.open(used / name) for name in rounds.names}
    for attempt in (3, 1_000_000):
        refused = rounds.order_for(open_study(used / "coordinator"), sites, "east", attempt=attempt)
        assert rounds.refused_by(refused) is Check.R0_ATTEMPT


def test_an_older_journal_goes_on_after_the_coordinator_s_last_attempt(rounds, used, east, plan):
    put_back(east, Lost.JOURNAL)
    with pytest.raises(RecordLostError, match="knows attempt 2"):
        command("restored", plan.digest(), "--last-attempt", 1, "--by", PERSON, "--site-folder", east.path)
    command("restored", plan.digest(), "--last-attempt", 2, "--by", PERSON, "--site-folder", east.path)
    assert losses(east) == []
    sites = {name: Site.open(used / name) for name in rounds.names}
    study = open_study(used / "coordinator")
    assert rounds.refused_by(rounds.order_for(study, sites, "east", attempt=2)) is Check.R0_ATTEMPT
    assert "east" in rounds.run(rounds.begin(study, attempt=3), sites).participants
    assert losses(east) == []


def test_after_a_lost_audit_log_no_approval_stands(east, plan):
    lose(east, Lost.AUDIT)
    decide(east, Lost.AUDIT)
    assert standing_approvals(east) == set()
    assert plan.digest() in next(audit_links(east)).entry["studies"]


@pytest.mark.parametrize("lost", Lost)
def test_what_is_not_lost_does_not_begin_again(lost, east):
    with pytest.raises(RecordLostError, match="nothing is lost"):
        decide(east, lost)


@pytest.mark.parametrize("lost", Lost)
def test_what_the_coordinators_heads_show_begins_ledger_and_journal_again_and_nothing_else(lost, east, plan):
    if lost in {Lost.LEDGER, Lost.JOURNAL}:
        assert plan.digest() in decide(east, lost, "--shown-elsewhere")["studies"]
    else:
        with pytest.raises(RecordLostError, match="nothing is lost"):
            decide(east, lost, "--shown-elsewhere")


@pytest.mark.parametrize("option", [("--shown-elsewhere",), ("--plan", "study.toml")])
def test_an_option_that_would_change_nothing_is_refused(option, east):
    lose(east, Lost.OUTBOX)
    with pytest.raises(PlanInvalidError, match=f"{option[0]} belongs to"):
        decide(east, Lost.OUTBOX, *option)
    assert not east.outbox.exists()


@pytest.mark.parametrize("lost", [Lost.LEDGER, Lost.JOURNAL])
def test_a_study_that_ended_with_a_lost_file_is_not_approved_again_and_check_says_it(lost, east, used, plan):
    lose(east, lost)
    decide(east, lost)
    paper = used / "coordinator" / "study.toml"
    with pytest.raises(StudyEndedError, match="ended at this site when a lost file began again"):
        command("approve", paper, "--approver", PERSON, "--yes", "--site-folder", east.path)
    [finding] = membership.plans(east)
    assert finding.level is Level.ADVICE
    assert f"plan {plan.digest()[:12]} is approved, but its study ended here" in finding.text


@pytest.mark.parametrize("lost", [Lost.AUDIT, Lost.LEDGER, Lost.JOURNAL])
def test_while_a_file_is_lost_nothing_is_approved_or_confirmed_and_no_log_begins_by_that(lost, east, used):
    lose(east, lost)
    paper = used / "coordinator" / "study.toml"
    with pytest.raises(RecordLostError, match=f"begin-again {lost} --by NAME"):
        command("approve", paper, "--approver", PERSON, "--yes", "--site-folder", east.path)
    if lost is Lost.AUDIT:
        with pytest.raises(RecordLostError, match="begin-again audit --by NAME"):
            command("confirm", "south", "--by", PERSON, "--site-folder", east.path)
    assert not any(file.exists() for file in files_of(east, lost))


def test_the_audit_log_shows_which_file_began_again_and_why(east):
    lose(east, Lost.LEDGER)
    decide(east, Lost.LEDGER)
    shown = command("audit", "--site-folder", east.path)
    assert all(word in shown for word in ("ledger:", *REASON.split()))


@pytest.mark.parametrize("words", [("", REASON), (PERSON, ""), (PERSON, "a" * 301), ("a\nb", REASON)])
def test_a_decision_needs_a_name_and_a_reason(words, east):
    lose(east, Lost.LEDGER)
    with pytest.raises(Exception, match=r"name|reason"):
        command("begin-again", "ledger", "--by", words[0], "--reason", words[1], "--yes", "--site-folder", east.path)
    assert not east.ledger.exists()


def test_what_is_replaced_is_kept(east):
    put_back(east, Lost.LEDGER)
    decide(east, Lost.LEDGER)
    assert (east.path / "replaced" / "ledger-1" / "ledger.sqlite").exists()


def opted_out(folder: SiteFolder, *keys: str) -> None:
    cache = open_folder(folder.cache, read_secret_file(folder.secret))
    for key in keys:
        opt_out(cache, OptOuts(frozenset({key})))
    keep_opt_outs(folder, cache)


def test_another_site_secret_is_noticed_and_its_decision_ends_the_studies_that_knew_the_old_one(rounds, used, east):
    opted_out(east, "1" * 32)
    east.secret.unlink()
    create_secret_file(east.secret)
    assert Lost.SECRET in lost_ones(east)
    with pytest.raises(RecordLostError):
        Site.open(east.path)
    lines = len(list(audit_links(east)))
    decide(east, Lost.SECRET)
    assert len(list(audit_links(east))) == lines + 1
    assert losses(east) == []
    sites = {name: Site.open(used / name) for name in rounds.names}
    refused = rounds.order_for(open_study(used / "coordinator"), sites, "east", attempt=3)
    assert rounds.refused_by(refused) in {Check.R0_ATTEMPT, Check.R0_PLAN}


def test_a_new_site_may_begin_its_ledger_and_a_joined_one_without_its_audit_log_is_noticed(tmp_path):
    folder = SiteFolder(tmp_path)
    folder.policy.write_text('format = "fedward-policy/1"\n')
    command("ledger", "--create", "--site-folder", tmp_path)
    folder.kit.write_text("{}")
    assert lost_ones(folder) == {Lost.AUDIT}


def test_a_crash_in_the_middle_of_the_decision_leaves_no_ledger_with_less(east, monkeypatch):
    lose(east, Lost.LEDGER)

    def crash(*_: object, **__: object) -> None:
        raise SystemError("killed")

    monkeypatch.setattr("client.ledger.ledger.Ledger.charge_whole", crash)
    with pytest.raises(SystemError):
        decide(east, Lost.LEDGER)
    assert not east.ledger.exists()
    monkeypatch.undo()
    decide(east, Lost.LEDGER)
    with Ledger.open(east.ledger, ceiling=20.0) as ledger:
        assert ledger.epsilon() > 1
