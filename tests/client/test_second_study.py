"""A hospital in a second study whose images are prepared in another way: both go on, from one site folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from client.__main__ import app
from client.consent.approval import approve
from client.consent.continuity.losses import losses
from client.consent.forecast import forecast
from client.dicom.cache import Cache
from client.dicom.cache_folder import HEADER
from client.dicom.caches import cache_of, caches
from client.dicom.errors import CacheInvalidError
from client.dicom.pseudonyms import Pseudonyms
from client.doctor import data
from client.doctor.findings import Level
from client.installation.folder import SiteFolder
from client.learning.patient_counts import frozen_counts
from client.ledger.ledger import Ledger
from client.site import Site
from common.files import write_new
from common.plan.errors import PlanInvalidError
from common.plan.reading import read_plan
from common.plan.signing import sign_plan
from common.privacy.accounting import epsilon
from common.secagg.messages import decode
from common.secagg.stages import SITE_SENDS, Kind
from common.trust.identity import read_secret_file
from common.trust.roster import signed_roster
from server.study.folder import Study, StudyFolder, open_study
from server.study.plan_template import new_plan_text

SIDE = 16


@dataclass(frozen=True)
class Both:
    """Four hospitals in two studies: where everything lies, and the scans of each hospital by its name."""

    root: Path
    scans: dict[str, Path]

    @property
    def studies(self) -> tuple[Study, Study]:
        return open_study(self.root / "coordinator"), open_study(self.root / "second")

    @property
    def north(self) -> SiteFolder:
        return SiteFolder(self.root / "north")

    def opened(self, study: Study) -> Cache:
        return Cache.open(cache_of(self.north, study.plan), read_secret_file(self.north.secret))


def command(*words: object, typed: str = "") -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], input=typed)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def read_scans(site: SiteFolder, scans: Path, plan: Path) -> dict:
    words = ("ingest", scans, "--plan", plan, "--labels", scans / "labels.csv", "--site-folder", site.path, "--json")
    return json.loads(command(*words))


def write_study(folder: StudyFolder, text: str, roster, coordinator_key, order_key) -> None:
    folder.path.mkdir()
    folder.plan.write_text(text)
    sign_plan(read_plan(folder.plan), folder.plan, coordinator_key)
    folder.roster.write_bytes(signed_roster(roster, coordinator_key))
    pem = order_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_new(folder.order_key, pem, 0o600)


@pytest.fixture(scope="module")
def second_text(roster, order_key, rounds) -> str:
    """The plan of a study of the same scans, in smaller pictures and in a window of their own."""
    counts = [f"{name}=8,4" for name in rounds.names]
    text = new_plan_text("second-study", roster, counts, order_key=order_key.public_key(), epsilon=6.0, rounds=3)
    for usual, ours in {
        "size_px = [64, 64]": f"size_px = [{SIDE}, {SIDE}]",
        '"abnormal"': '"consolidation"',
        "reply_slot_s = 3.0": "reply_slot_s = 0.4",
    }.items():
        assert usual in text, usual
        text = text.replace(usual, ours)
    return text


@pytest.fixture(scope="module")
def made(prepared, scans, second_text, roster, coordinator_key, order_key, rounds, tmp_path_factory) -> Both:  # noqa: PLR0917 (fixtures)
    root = shutil.copytree(prepared, tmp_path_factory.mktemp("both") / "root")
    hospitals = sorted(path for path in scans.iterdir() if path.is_dir())
    both = Both(root, dict(zip(rounds.names, hospitals, strict=True)))
    second = StudyFolder(root / "second")
    write_study(second, second_text, roster, coordinator_key, order_key)
    for name, folder in both.scans.items():
        read_scans(SiteFolder(root / name), folder, second.plan)
        approve(SiteFolder(root / name), second.plan, approver=f"Dr {name}")
    return both


@pytest.fixture
def both(made, tmp_path) -> Both:
    return Both(shutil.copytree(made.root, tmp_path / "root"), made.scans)


def test_each_study_has_a_cache_of_its_own_with_the_same_patients_under_the_same_keys(both):
    first, second = both.studies
    assert cache_of(both.north, first.plan) == both.north.cache
    assert caches(both.north) == [both.north.cache, cache_of(both.north, second.plan)]
    in_first, in_second = both.opened(first), both.opened(second)
    assert {record.shape for record in in_first.records} == {(32, 32)}
    assert {record.shape for record in in_second.records} == {(SIDE, SIDE)}
    assert in_first.patients().keys() == in_second.patients().keys() != set()
    assert in_first.frozen(first.plan.digest()).patients().keys() == in_first.patients().keys()
    assert frozen_counts(both.north, first.plan) == frozen_counts(both.north, second.plan)


def opened_sites(both, rounds) -> dict[str, Site]:
    engines = both.root / "engines"  # one for all: measured once
    return {name: Site.open(both.root / name, engines=engines, holds_replies=False) for name in rounds.names}


def test_both_studies_are_trained_side_by_side_and_a_patient_pays_for_both(both, rounds):
    """What docs/privacy.md promises: one ceiling over all studies, whatever cache their images lie in."""
    sites = opened_sites(both, rounds)
    for study in both.studies:
        assert set(rounds.run(rounds.begin(study), sites).participants) == set(rounds.names)
    first, second = both.studies
    assert not is_refusal(rounds.order_for(first, sites, "north", attempt=2)), "it goes on after the other began"
    with Ledger.open(both.north.ledger, ceiling=20.0) as ledger:
        spent = {each.study: each for each in ledger.spending()}
        assert [len(spent[study.plan.digest()].attempts) for study in both.studies] == [2, 1]
        delta = min(each.delta for each in spent.values())
        choices = [
            epsilon([*one, *other], delta)
            for one in spent[first.plan.digest()].events.values()
            for other in spent[second.plan.digest()].events.values()
        ]
        assert ledger.epsilon() == pytest.approx(max(choices), rel=1e-3)
        assert ledger.epsilon() > max(each.epsilon(s) for each in spent.values() for s in each.events)
        secret = read_secret_file(both.north.secret)
        for study in both.studies:
            strata = both.opened(study).manifest(study.plan.digest()).strata_digest(secret).hex()
            assert ledger.openings()[study.plan.digest()]["strata"] == strata
    assert forecast(both.north, second.plan, ceiling=20.0).before == pytest.approx(max(choices), rel=1e-3)


def a_patient(both) -> tuple[str, str]:
    """Return PatientID and key of a patient of north."""
    header = pydicom.dcmread(min(both.scans["north"].rglob("*.dcm")), stop_before_pixels=True)
    names = Pseudonyms.of_site(read_secret_file(both.north.secret))
    return header.PatientID, names.patient(str(header.get("IssuerOfPatientID", "")), header.PatientID)


def test_a_patient_who_opts_out_leaves_every_cache_and_comes_back_into_none(both, second_text, tmp_path):
    identifier, key = a_patient(both)
    assert all(key in both.opened(study).patients() for study in both.studies)
    told = command("withdraw", "--site-folder", both.north.path, "--json", typed=f"{identifier}\n")
    assert json.loads(told[told.index("{") :])["persons"] == 1, "one person, although two caches knew them"
    draft = tmp_path / "third.toml"
    draft.write_text(second_text.replace(f"size_px = [{SIDE}, {SIDE}]", "size_px = [24, 24]"))
    plans = [*(study.folder.plan for study in both.studies), draft]
    for plan in plans:
        assert read_scans(both.north, both.scans["north"], plan)["rejected"]["withdrawn"] > 0
    assert len(caches(both.north)) == 3
    for path in caches(both.north):
        assert key not in Cache.open(path, read_secret_file(both.north.secret)).patients()
    for study in both.studies:
        assert both.opened(study).frozen(study.plan.digest()).patients()[key] == [], "a null record"
    assert losses(both.north) == []


def damaged_header(cache: Path) -> None:
    (cache / HEADER).write_text("{")


def no_header(cache: Path) -> None:
    (cache / HEADER).unlink()


def cut_index(cache: Path) -> None:
    shutil.rmtree(cache / "catalogues")
    for part in (cache / "segments").glob("*.index"):
        part.write_bytes(part.read_bytes()[:40])


def damaged_list(cache: Path) -> None:
    (cache / "withdrawn.sealed").write_bytes(b"no list")


def another_secret(cache: Path) -> None:
    header = json.loads((cache / HEADER).read_text())
    (cache / HEADER).write_text(json.dumps(header | {"key_check": "00" * 16}))


BROKEN = (damaged_header, no_header, cut_index, damaged_list, another_secret)


@pytest.mark.parametrize("spoil", BROKEN)
def test_a_broken_cache_stops_no_study_of_another(spoil, both, rounds):
    first, second = both.studies
    spoil(both.north.cache)
    assert losses(both.north) == []
    sites = opened_sites(both, rounds)
    assert not is_refusal(rounds.order_for(second, sites, "north"))
    assert is_refusal(rounds.order_for(first, sites, "north"))
    report = read_scans(both.north, both.scans["north"], second.folder.plan)
    assert report["records"] == len(both.opened(second))
    found = [*data.cache(both.north)]
    assert {finding.level for finding in found} == {Level.OK, Level.STOP}


@pytest.mark.parametrize("spoil", BROKEN)
def test_an_opt_out_goes_as_far_as_it_can_and_says_where_it_did_not(spoil, both):
    identifier, key = a_patient(both)
    first, second = both.studies
    spoil(both.north.cache)
    with pytest.raises(CacheInvalidError, match=r"noted, but .*\(cache: .*withdraw` again"):
        command("withdraw", "--site-folder", both.north.path, typed=f"{identifier}\n")
    assert key not in both.opened(second).patients()
    shutil.rmtree(both.north.cache)
    assert read_scans(both.north, both.scans["north"], first.folder.plan)["rejected"]["withdrawn"] > 0


def test_without_a_plan_ingest_asks_for_which_study_and_nothing_is_read(both):
    with pytest.raises(PlanInvalidError, match="2 ways here") as asked:
        command("ingest", both.scans["north"], "--site-folder", both.north.path)
    for word in ("cache: xray-study", f"{SIDE} x {SIDE}", "second-study", "--plan"):
        assert word in str(asked.value)


def test_data_has_a_table_and_a_sheet_for_each_cache_or_for_the_plans_alone(both, tmp_path):
    words = ("data", "--site-folder", both.north.path, "--contact-sheet", tmp_path / "sheet.png", "--json")
    told = json.loads(command(*words))["caches"]
    assert [each["studies"] for each in told] == [["xray-study"], ["second-study"]]
    assert all(each["images"] and each["cache_bytes"] > 0 for each in told)
    names = [path.name for path in caches(both.north)]
    assert sorted(file.name for file in tmp_path.glob("*.png")) == sorted(f"sheet-{name}.png" for name in names)
    alone = json.loads(
        command("data", "--site-folder", both.north.path, "--plan", both.studies[1].folder.plan, "--json")
    )
    assert alone.items() <= told[1].items()


def test_a_plan_for_which_nothing_was_read_says_how_and_what_is_here_stays(both, second_text, coordinator_key):
    plan = both.root / "third.toml"
    plan.write_text(second_text.replace(f"size_px = [{SIDE}, {SIDE}]", "size_px = [24, 24]"))
    sign_plan(read_plan(plan), plan, coordinator_key)
    with pytest.raises(
        CacheInvalidError, match=r"size_px is \(\d+, \d+\), not \(24, 24\).*fedward-site ingest SCANS --plan"
    ):
        approve(both.north, plan, approver="Dr North")
    assert len(caches(both.north)) == 2


def test_a_plan_with_the_same_settings_shares_the_cache(both, second_text):
    plan = both.root / "later.toml"
    plan.write_text(second_text.replace("second-study", "a-later-study"))
    report = read_scans(both.north, both.scans["north"], plan)
    assert (report["files_read"], report["study"]) == (0, "a-later-study")
    assert report["cache"] == str(cache_of(both.north, both.studies[1].plan).relative_to(both.north.path))
    assert len(caches(both.north)) == 2


def is_refusal(packet) -> bool:
    return decode(packet.message, SITE_SENDS)[0] is Kind.REFUSAL
