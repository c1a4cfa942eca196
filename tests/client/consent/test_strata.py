"""Strata belong to the study, not to the cache: a cache made again gives the same ones, or the study ends here."""

import csv
import shutil

import pytest

from client.consent.approval import approve, withdraw_approval
from client.dicom.cache import Cache
from client.dicom.ingest import ingest
from client.dicom.settings import settings_for
from client.ledger.errors import StrataChangedError
from client.ledger.ledger import Ledger
from client.site import Site
from common.secagg.refusals import Check
from common.trust.identity import create_secret_file, read_secret_file

UNLABELLED = ("", "unlabelled", "exclude")


def read_again(folder, scans, plan, place, *, relabel=None, patients_gone=0):
    """Lose the cache, and read the scans again with another label table or fewer patients."""
    shutil.rmtree(folder.cache)
    copy = shutil.copytree(scans, place)
    with (copy / "labels.csv").open() as file:
        rows = list(csv.reader(file))
    if relabel:
        for row in [row for row in rows[1:] if row[2] not in UNLABELLED][::2]:
            row[2] = relabel
    with (copy / "labels.csv").open("w") as file:
        csv.writer(file).writerows(rows)
    for gone in sorted(path for path in copy.iterdir() if path.is_dir())[:patients_gone]:
        shutil.rmtree(gone)
    secret = read_secret_file(folder.secret)
    ingest(copy, folder.cache, settings=settings_for(plan.task, plan.image), secret=secret, labels=copy / "labels.csv")


def strata(folder, plan):
    """Stratum of each patient that is there; None for one that has vanished."""
    patients = Cache.open(folder.cache, read_secret_file(folder.secret)).frozen(plan.digest()).patients()
    return {key: records[0].stratum if records else None for key, records in patients.items()}


@pytest.fixture
def began(rounds, study, sites, copied, scans):
    """East, which has taken part in one attempt: its folder, the plan and its scans."""
    rounds.run(rounds.begin(study, attempt=1), sites)
    return sites["east"].folder, study, min(path for path in scans.iterdir() if path.is_dir())


def test_a_cache_made_again_with_other_labels_gives_the_strata_with_which_the_study_began(
    rounds, began, copied, tmp_path
):
    folder, study, scans = began
    before = strata(folder, study.plan)
    read_again(folder, scans, study.plan, tmp_path / "scans", relabel="unlabelled")
    approve(folder, study.folder.plan, approver="Dr East")
    assert strata(folder, study.plan) == before
    fresh = {name: Site.open(copied / name) for name in rounds.names}
    assert "east" in rounds.run(rounds.begin(study, attempt=2), fresh).participants


def test_a_patient_whose_scans_are_gone_is_a_null_record_of_the_same_stratum(began, tmp_path):
    folder, study, scans = began
    before = strata(folder, study.plan)
    read_again(folder, scans, study.plan, tmp_path / "scans", patients_gone=1)
    approve(folder, study.folder.plan, approver="Dr East")
    after = strata(folder, study.plan)
    assert after.keys() == before.keys()
    assert {key: kept for key, kept in after.items() if kept}.items() <= before.items()


def test_without_the_kept_list_other_strata_end_the_study_here_and_the_sentence_says_what_to_do(began, tmp_path):
    folder, study, scans = began
    shutil.rmtree(folder.studies)
    read_again(folder, scans, study.plan, tmp_path / "scans", relabel="unlabelled")
    with pytest.raises(StrataChangedError, match=r"Restore .* backup"):
        approve(folder, study.folder.plan, approver="Dr East")


def test_without_the_kept_list_the_same_strata_go_on(rounds, began, copied, tmp_path):
    folder, study, scans = began
    shutil.rmtree(folder.studies)
    read_again(folder, scans, study.plan, tmp_path / "scans")
    approve(folder, study.folder.plan, approver="Dr East")
    fresh = {name: Site.open(copied / name) for name in rounds.names}
    assert "east" in rounds.run(rounds.begin(study, attempt=2), fresh).participants
    assert folder.studies.is_dir(), "the list is kept again"


def test_taking_the_approval_back_and_giving_it_again_does_not_move_a_stratum(began, tmp_path):
    folder, study, scans = began
    before = strata(folder, study.plan)
    withdraw_approval(folder, study.plan.digest(), approver="Dr East")
    read_again(folder, scans, study.plan, tmp_path / "scans", relabel="unlabelled")
    approve(folder, study.folder.plan, approver="Dr East")
    assert strata(folder, study.plan) == before


def test_a_list_put_into_the_cache_past_approval_is_refused_at_the_next_order(rounds, began, copied, tmp_path):
    folder, study, scans = began
    read_again(folder, scans, study.plan, tmp_path / "scans", relabel="unlabelled")
    Cache.open(folder.cache, read_secret_file(folder.secret)).freeze(study.plan.digest())  # not by `approve`
    fresh = {name: Site.open(copied / name) for name in rounds.names}
    assert rounds.refused_by(rounds.order_for(study, fresh, "east", attempt=2)) is Check.R0_PLAN
    [spent] = rounds.spending(fresh["east"])
    assert list(spent.attempts) == [1], "nothing was charged"


def test_a_list_exchanged_under_a_running_site_is_refused_at_the_next_charge(rounds, began, sites, tmp_path):
    folder, study, scans = began
    read_again(folder, scans, study.plan, tmp_path / "scans", relabel="unlabelled")
    Cache.open(folder.cache, read_secret_file(folder.secret)).freeze(study.plan.digest())
    assert rounds.refused_by(rounds.order_for(study, sites, "east", attempt=2)) is Check.R0_CONTRIBUTION


def test_before_the_first_charge_a_study_takes_the_cache_as_it_is(study, sites, scans, tmp_path):
    folder = sites["east"].folder
    before = strata(folder, study.plan)
    east = min(path for path in scans.iterdir() if path.is_dir())
    read_again(folder, east, study.plan, tmp_path / "scans", relabel="unlabelled")
    approve(folder, study.folder.plan, approver="Dr East")
    assert strata(folder, study.plan) != before


def test_another_site_secret_cannot_pass_for_the_same_strata(began, tmp_path):
    folder, study, scans = began
    folder.secret.unlink()
    create_secret_file(folder.secret)
    read_again(folder, scans, study.plan, tmp_path / "scans")
    with pytest.raises(Exception, match=r"site\.secret"):
        approve(folder, study.folder.plan, approver="Dr East")
    shutil.rmtree(folder.studies)
    with pytest.raises(StrataChangedError):
        approve(folder, study.folder.plan, approver="Dr East")


def test_the_first_entry_says_nothing_of_who_is_in_it(began):
    folder, study, _ = began
    secret = read_secret_file(folder.secret)
    with Ledger.open(folder.ledger, ceiling=1.0) as ledger:
        entry = ledger.openings()[study.plan.digest()]
    manifest = Cache.open(folder.cache, secret).manifest(study.plan.digest())
    assert bytes.fromhex(entry["strata"]) == manifest.strata_digest(secret) != manifest.strata_digest(b"\0" * 32)
    assert len(entry["strata"]) == 64
