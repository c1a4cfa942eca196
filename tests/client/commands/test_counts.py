"""Declared counts against true ones, and classes that hardly anybody has: told to staff at approve and check."""

import pytest

from client.consent.approval import approve
from client.consent.true_counts import count_notes
from client.dicom.cache import Cache
from client.dicom.ingest import ingest
from client.installation.config import default_site_config
from common.plan.reading import read_plan
from common.trust.identity import read_secret_file


@pytest.fixture
def notes(stocked, plan_file):
    """The sentences for a plan that declares these counts; the hospital has 70 patients with a label and 20 without."""
    cache, plan = Cache.open(stocked.cache, read_secret_file(stocked.secret)), read_plan(plan_file)

    def of(labelled, unlabelled):
        counts = {"labelled_patients": labelled, "unlabelled_patients": unlabelled}
        sites = tuple(site.model_copy(update=counts) if site.name == "north" else site for site in plan.sites)
        return count_notes(cache, plan.model_copy(update={"sites": sites}), "north")

    return of


DECLARED = {
    "as they are": ((70, 20), ()),
    "rounded": ((73, 21), ()),
    "too many": ((100, 20), ("declares 100 labelled patients of this hospital, here are 70: rounds are divided by",)),
    "too few": ((66, 20), ("declares 66 labelled patients of this hospital, here are 70: steps are longer",)),
    "far too few": ((70, 0), ("declares 0 unlabelled patients of this hospital, here are 20: steps are longer",)),
    "both": ((100, 900), ("100 labelled patients of this hospital, here are 70", "900 unlabelled")),
}


@pytest.mark.parametrize("case", DECLARED)
def test_a_count_that_is_not_the_true_one_is_said_with_both_numbers_and_what_follows(case, notes):
    declared, expected = DECLARED[case]
    found = notes(*declared)
    assert len(found) == len(expected)
    assert all(part in sentence for part, sentence in zip(expected, found, strict=True))
    assert all("their epsilon stays" in sentence for sentence in found)
    assert ("false ones" in "".join(found)) == (case == "far too few")


def test_approve_and_check_say_them_and_the_plan_can_be_approved_all_the_same(
    asked, site_command, stocked, plan_file, look
):
    told = asked("approve", plan_file, "--site-folder", stocked.path)
    assert [("100 labelled" in told["counts"][0]), "900 unlabelled" in told["counts"][1]] == [True, True]
    page = site_command("approve", plan_file, "--site-folder", stocked.path, "--approver", "Dr A. Meyer", "--yes")
    assert "here are 70" in " ".join(page.split())
    stocked.config.write_text(default_site_config("north"))
    level, text, _ = look(stocked, "--offline")["counts"]
    assert (level, "declares" in text) == ("advice", True)


def test_a_class_that_one_patient_has_or_none_is_named_without_a_number(stocked, plan_file, hospital, look, tmp_path):
    rows = hospital.labels.read_text().replace("abnormal", "normal")
    (tmp_path / "labels.csv").write_text(rows)
    cache, secret = Cache.open(stocked.cache, read_secret_file(stocked.secret)), read_secret_file(stocked.secret)
    ingest(hospital.scans, stocked.cache, settings=cache.settings, secret=secret, labels=tmp_path / "labels.csv")
    stocked.config.write_text(default_site_config("north"))
    level, text, _ = look(stocked, "--offline")["counts"]
    assert (level, text.partition(";")[0]) == ("advice", "no patient here, or a single one, has: abnormal")
    approve(stocked, plan_file, approver="Dr A. Meyer")
    assert "has: abnormal" in " ".join(count_notes(Cache.open(stocked.cache, secret), read_plan(plan_file), "north"))
