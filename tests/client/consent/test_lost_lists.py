"""The list of who opted out, and the files whose loss needs no decision: what each loss comes to, by the commands."""

import json
import shutil
import sqlite3

import pytest
from typer.testing import CliRunner

from client.__main__ import app
from client.consent.approval import approve, approved_plans
from client.consent.continuity.errors import RecordLostError
from client.consent.continuity.files import PRICES, Lost
from client.consent.continuity.losses import losses
from client.consent.continuity.opting_out import keep_opt_outs
from client.dicom.cache_folder import open_folder
from client.dicom.kept_opt_outs import KeptOptOuts
from client.dicom.opt_outs import OptOuts
from client.dicom.withdrawals import load_withdrawn, opt_out
from client.installation.audit_log import audit_links
from client.installation.folder import SiteFolder
from client.ledger.ledger import Ledger
from client.site import Site
from common.plan.guarantee import guarantee
from common.secagg.refusals import Check
from common.trust.identity import read_secret_file

PERSON, REASON = "Dr Mina Rao", "the disk died and no backup opens"
ANNA, BEN, CARA = ("1" * 32, "2" * 32, "3" * 32)


@pytest.fixture
def east(copied) -> SiteFolder:
    folder = SiteFolder(copied / "east")
    folder.config.write_text('format = "fedward-site/1"\n[site]\nname = "east"\n')
    return folder


def command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def decide(folder: SiteFolder, lost: Lost) -> dict:
    words = ("--by", PERSON, "--reason", REASON, "--yes", "--json", "--site-folder", folder.path)
    return json.loads(command("begin-again", lost, *words))


def lost_ones(folder: SiteFolder) -> set[Lost]:
    return {loss.lost for loss in losses(folder)}


def opted_out(folder: SiteFolder, *keys: str) -> None:
    cache = open_folder(folder.cache, read_secret_file(folder.secret))
    for key in keys:
        opt_out(cache, OptOuts(frozenset({key})))
    keep_opt_outs(folder, cache)


def on_the_list(folder: SiteFolder) -> frozenset[str]:
    return KeptOptOuts(folder.opted_out, read_secret_file(folder.secret)).load().patients


def test_status_names_a_lost_file_and_an_orderly_site_has_none(east):
    assert json.loads(command("status", "--json", "--site-folder", east.path))["lost"] == []
    east.ledger.unlink()
    said = json.loads(command("status", "--json", "--site-folder", east.path))["lost"]
    assert said == [loss.text for loss in losses(east)] != []
    assert f"LOST: {said[0]}" in command("status", "--site-folder", east.path).replace("\n", " ")


def test_status_says_when_nobody_can_tell_whether_a_file_is_lost(east, monkeypatch):
    def failing(_folder):
        raise sqlite3.DatabaseError("a text that may hold anything")

    monkeypatch.setattr("client.agent.site_status.losses", failing)
    said = json.loads(command("status", "--json", "--site-folder", east.path))["lost"]
    assert said == ["nobody can tell whether a file is: a database failed"]


def test_a_lost_list_of_opt_outs_stops_training_and_ingest_until_all_are_named_again(east):
    opted_out(east, ANNA, BEN)
    Site.open(east.path)
    east.opted_out.unlink()
    shutil.rmtree(east.cache)
    assert lost_ones(east) == {Lost.WITHDRAWALS}
    for call in (lambda: Site.open(east.path), lambda: read_scans(east)):
        with pytest.raises(RecordLostError, match="who opted out"):
            call()


def read_scans(folder: SiteFolder) -> None:
    plan = next(folder.plans.glob("*/plan.toml"))
    command("ingest", folder.path.parent, "--plan", plan, "--site-folder", folder.path)


def test_opt_outs_named_again_heal_the_list_without_a_decision(east):
    opted_out(east, ANNA, BEN)
    east.opted_out.unlink()
    (east.cache / "withdrawn.sealed").unlink()
    opted_out(east, ANNA)
    assert lost_ones(east) == {Lost.WITHDRAWALS}
    opted_out(east, BEN)
    assert losses(east) == []


def remove(folder: SiteFolder) -> None:
    folder.opted_out.unlink()


def damage(folder: SiteFolder) -> None:
    content = bytearray(folder.opted_out.read_bytes())
    content[len(content) // 2] ^= 1
    folder.opted_out.write_bytes(content)


def empty(folder: SiteFolder) -> None:
    folder.opted_out.write_bytes(b"")


@pytest.mark.parametrize("spoil", [remove, damage, empty])
def test_a_named_person_lets_the_list_of_opt_outs_begin_again_and_the_site_goes_on(spoil, east):
    opted_out(east, ANNA, BEN)
    (east.cache / "withdrawn.sealed").unlink()
    spoil(east)
    assert lost_ones(east) == {Lost.WITHDRAWALS}
    with pytest.raises(RecordLostError, match="begin-again withdrawals --by NAME --reason TEXT"):
        Site.open(east.path)
    assert decide(east, Lost.WITHDRAWALS) == {"file": "withdrawals", "price": PRICES[Lost.WITHDRAWALS], "studies": []}
    assert losses(east) == []
    Site.open(east.path)
    assert east.opted_out.exists() is False
    assert (east.path / "replaced" / "withdrawals-1").is_dir() == (spoil is not remove), "what is replaced is kept"
    [line] = [link.entry for link in audit_links(east) if link.entry["what"] == "begun again"]
    assert (line["file"], line["person"], line["reason"], line["opted_out"]) == ("withdrawals", PERSON, REASON, 0)
    told = CliRunner().invoke(app, ["check", "--site-folder", str(east.path), "--offline", "--json"]).stdout
    assert PERSON in told


def test_after_the_decision_whoever_was_named_again_stays_out_and_the_next_loss_is_noticed(east):
    opted_out(east, ANNA, BEN, CARA)
    east.opted_out.unlink()
    (east.cache / "withdrawn.sealed").unlink()
    opted_out(east, ANNA, BEN)
    decide(east, Lost.WITHDRAWALS)
    assert on_the_list(east) == {ANNA, BEN}, "the decision forgets nobody who is on the list"
    assert losses(east) == []
    older = east.opted_out.read_bytes()
    opted_out(east, CARA)
    east.opted_out.write_bytes(older)
    shutil.rmtree(east.cache)
    assert lost_ones(east) == {Lost.WITHDRAWALS}, "an older copy is noticed as the first loss was"


def test_a_cache_from_a_backup_that_still_holds_a_patient_who_opted_out_is_noticed(east):
    opted_out(east, ANNA)
    older = (east.cache / "withdrawn.sealed").read_bytes()
    opted_out(east, BEN)
    (east.cache / "withdrawn.sealed").write_bytes(older)
    assert lost_ones(east) == {Lost.WITHDRAWALS}
    keep_opt_outs(east, open_folder(east.cache, read_secret_file(east.secret)))  # as `ingest` does first
    assert losses(east) == []
    cache = open_folder(east.cache, read_secret_file(east.secret))
    assert load_withdrawn(cache.path, cache.vault).patients == {ANNA, BEN}


def test_without_its_plans_a_site_works_on_none_and_what_they_promised_stands_in_the_audit_log(rounds, study, east):
    shutil.rmtree(east.plans)
    assert losses(east) == [], "this loss stops what it would loosen"
    site = Site.open(east.path)
    assert rounds.refused_by(rounds.order_for(study, {"east": site}, "east")) is Check.R0_PLAN
    east.ledger.unlink()
    assert decide(east, Lost.LEDGER)["studies"] == [study.plan.digest()]
    with Ledger.open(east.ledger, ceiling=20.0) as ledger:
        assert ledger.epsilon() == pytest.approx(guarantee(study.plan).epsilon)


def test_a_plan_approved_again_after_its_file_was_lost_is_worked_on(study, east):
    shutil.rmtree(east.plans)
    assert approved_plans(east) == {}
    approve(east, study.folder.plan, approver="Dr East")
    assert list(approved_plans(east)) == [study.plan.digest()]
    assert losses(east) == []


def test_the_page_has_a_row_for_each_file_and_names_where_its_tests_are(repository):
    page = (repository / "docs" / "lost-files.md").read_text()
    for lost in Lost:
        assert f"| `{lost}` |" in page
    for named in ("test_lost_files.py", "test_lost_lists.py", "test_strata.py"):
        assert f"`tests/client/consent/{named}`" in page
