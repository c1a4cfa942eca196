"""One site folder, several caches: opt-outs, decisions and words reach all of them, and nobody names a folder."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from client.__main__ import app
from client.consent.continuity.opting_out import keep_opt_outs
from client.dicom.cache import Cache
from client.dicom.cache_folder import locked, made_for, open_folder, open_or_create
from client.dicom.caches import cache_for, cache_made_for, caches
from client.dicom.errors import CacheInvalidError, LabelsInvalidError
from client.dicom.kept_opt_outs import KeptOptOuts
from client.dicom.opt_outs import OptOuts
from client.dicom.person_decisions import load_rules
from client.dicom.person_rules import PersonFrom
from client.dicom.pseudonyms import derive
from client.dicom.withdrawals import load_withdrawn
from client.features.store import NAMES, _name, keep_only
from client.installation.audit_log import audit_links
from client.installation.config import default_site_config
from client.installation.folder import SiteFolder
from common.files import write_new

SIZES = (16, 32)


@dataclass
class Archive:
    """A site folder, a folder of scans for each study, and ``fedward-site``."""

    path: Path
    scan: object
    scans: dict[int, Path] = field(default_factory=dict)

    @property
    def site(self) -> SiteFolder:
        return SiteFolder(self.path / "site")

    def plan(self, size: int, classes: str = '"normal", "lesion"') -> Path:
        file = self.path / f"plan-{size}-{len(classes)}.toml"
        file.write_text(
            f'[task]\nkind = "classification"\nclasses = [{classes}]\nmodalities = ["CT"]\ndimensions = 2\n'
            f'[image]\nsize_px = [{size}, {size}]\nintensity = "ct_window"\nwindow_hu = [0.0, 4000.0]\n'
        )
        return file

    def add(self, size: int, patient: str) -> None:
        folder = self.path / f"scans-{size}"
        folder.mkdir(exist_ok=True)
        number = len(list(folder.iterdir())) + 1
        frame = np.add.outer(np.arange(32) * 8, np.arange(32) + 16 * number).astype(np.uint16)
        (folder / f"{number}.dcm").write_bytes(self.scan(frame, patient=patient, number=number))

    def run(self, *words: object, typed: str = "") -> str:
        done = CliRunner().invoke(app, [*map(str, words), "--site-folder", str(self.site.path)], input=typed)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    def ingest(self, size: int, *more: object) -> dict:
        return json.loads(self.run("ingest", self.path / f"scans-{size}", "--plan", self.plan(size), "--json", *more))

    def cache(self, size: int) -> Path:
        [found] = [path for path in caches(self.site) if made_for(path).size_px == (size, size)]
        return found

    def patients(self, size: int) -> int:
        return len(Cache.open(self.cache(size), self.secret).patients())

    @property
    def secret(self) -> bytes:
        return self.site.secret.read_bytes()


@pytest.fixture
def archive(tmp_path, scan) -> Archive:
    (tmp_path / "site").mkdir(mode=0o700)
    write_new(tmp_path / "site" / "site.secret", bytes(range(32)), 0o600)
    return Archive(tmp_path, scan)


def merged(archive: Archive) -> tuple[object, ...]:
    (archive.path / "same.csv").write_text("former_id,current_id\nOLD,NEW\n")
    return "--same-persons", archive.path / "same.csv"


@pytest.mark.parametrize("told_to", SIZES)
def test_a_person_joined_by_a_table_leaves_every_cache_under_each_identifier(told_to, archive):
    """The first study's scans know the person as OLD, the second's as NEW; the table is given once."""
    for size, patient in zip(SIZES, ("OLD", "NEW"), strict=True):
        archive.add(size, patient)
        archive.add(size, "OTHER")
        archive.ingest(size)
    archive.ingest(told_to, *merged(archive))
    archive.run("withdraw", typed="OLD\n")
    assert [archive.patients(size) for size in SIZES] == [1, 1]


def test_a_join_told_after_the_opt_out_erases_in_the_other_cache_at_once(archive):
    for size, patient in zip(SIZES, ("OLD", "NEW"), strict=True):
        archive.add(size, patient)
        archive.add(size, "OTHER")
        archive.ingest(size)
    archive.run("withdraw", typed="OLD\n")
    assert archive.patients(32) == 2
    archive.ingest(16, *merged(archive))
    assert archive.patients(32) == 1


def test_a_new_cache_begins_with_what_was_decided_about_persons(archive):
    for size in SIZES:
        archive.add(size, "ANONYMOUS")
    archive.ingest(16, "--person-from", "study", "--decided-by", "Dr Rao")
    archive.ingest(32)
    for size in SIZES:
        folder = open_folder(archive.cache(size), archive.secret)
        assert load_rules(folder.path, folder.vault).person_from is PersonFrom.STUDY


def test_a_cache_that_is_written_to_is_told_later_and_the_opt_out_is_noted_before(archive):
    for size in SIZES:
        archive.add(size, "P1")
        archive.add(size, "OTHER")
        archive.ingest(size)
    with locked(archive.cache(16)), pytest.raises(CacheInvalidError, match=r"is noted.*cache: .*another ingest"):
        archive.run("withdraw", typed="P1\n")
    assert [archive.patients(size) for size in SIZES] == [2, 1]
    assert KeptOptOuts(archive.site.opted_out, archive.secret).load().identifiers
    archive.ingest(32)  # whichever study's: it brings all caches up to the list
    assert archive.patients(16) == 1


def test_the_list_is_on_disk_before_any_cache_is_told(archive, settings_with, monkeypatch):
    open_or_create(archive.site.cache, archive.secret, settings_with())
    request = OptOuts(frozenset({"1" * 32}))

    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("client.consent.continuity.opting_out.opt_out", ended)
    with pytest.raises(KeyboardInterrupt):
        keep_opt_outs(archive.site, request=request)
    assert KeptOptOuts(archive.site.opted_out, archive.secret).load() == request
    monkeypatch.undo()
    keep_opt_outs(archive.site)
    folder = open_folder(archive.site.cache, archive.secret)
    assert load_withdrawn(folder.path, folder.vault) == request


def test_every_list_says_the_same_and_the_audit_log_has_one_line_for_an_opt_out(archive):
    for size in SIZES:
        archive.add(size, "P1")
        archive.add(size, "OTHER")
        archive.ingest(size)
    archive.run("withdraw", typed="P1\n")
    kept = KeptOptOuts(archive.site.opted_out, archive.secret).load()
    for size in SIZES:
        folder = open_folder(archive.cache(size), archive.secret)
        assert load_withdrawn(folder.path, folder.vault) == kept
    assert keep_opt_outs(archive.site).opt_outs == kept
    lines = [link.entry for link in audit_links(archive.site) if link.entry["what"] == "opted out"]
    assert [line["opted_out"] for line in lines] == [len(kept.patients) + len(kept.identifiers)]


def test_who_opts_out_before_any_scan_was_read_is_never_read(archive):
    archive.run("withdraw", typed="P1\n")
    archive.add(16, "P1")
    archive.add(16, "OTHER")
    assert archive.ingest(16)["rejected"] == {"withdrawn": 1}


def test_the_first_cache_keeps_its_place_and_others_lie_beside_it(archive, settings_with):
    first, second = settings_with(size_px=(16, 16)), settings_with()
    place = cache_for(archive.site, first)
    assert place == archive.site.cache
    open_or_create(place, archive.secret, first)
    beside = cache_for(archive.site, second)
    assert beside.parent == archive.site.caches
    open_or_create(beside, archive.secret, second)
    assert [cache_for(archive.site, each) for each in (first, second)] == caches(archive.site) == [place, beside]


def test_a_study_stays_with_the_cache_of_its_approval_when_a_newer_program_reads_its_scans_again(
    archive, settings_with
):
    older, study = settings_with(pipeline_version=1), "ab" * 32
    with pytest.raises(CacheInvalidError, match="a cache beside it"):
        open_or_create(archive.site.cache, archive.secret, older)
    Cache.open(archive.site.cache, archive.secret).freeze(study)
    beside = cache_for(archive.site, settings_with())
    assert beside != archive.site.cache
    open_or_create(beside, archive.secret, settings_with())
    assert cache_made_for(archive.site, settings_with(), study=study) == archive.site.cache
    assert cache_made_for(archive.site, settings_with(), study="cd" * 32) == beside


def test_the_words_of_site_toml_are_of_the_table_it_names_and_a_second_study_has_its_own(archive):
    for size in SIZES:
        archive.add(size, "P1")
    (archive.path / "first.csv").write_text("Pat-Nr;diagnosis\nP1;Herd\n")
    (archive.path / "second.csv").write_text("key_type,key,label\nPatientID,P1,fracture\n")
    words = ["Pat-Nr=PatientID", "diagnosis:Herd=lesion", "segment:Leber=liver"]
    settings = default_site_config("north").replace("map = []", f"map = {json.dumps(words)}")
    archive.site.config.write_text(settings.replace('labels = ""', f'labels = "{archive.path / "first.csv"}"'))
    assert archive.ingest(16, "--labels", archive.path / "first.csv")["labelled_patients"] == 1
    plan = archive.plan(32, '"normal", "fracture"')
    table = archive.path / "second.csv"
    told = archive.run("ingest", archive.path / "scans-32", "--plan", plan, "--labels", table, "--json")
    assert json.loads(told)["labelled_patients"] == 1
    with pytest.raises(LabelsInvalidError):
        archive.ingest(16, "--labels", table)


def test_features_of_every_caches_scans_stay_and_of_a_cache_that_is_away_too(archive, tmp_path):
    for size in SIZES:
        archive.add(size, "P1")
        archive.ingest(size)
    records = {size: list(Cache.open(archive.cache(size), archive.secret).records) for size in SIZES}
    root = tmp_path / "features"
    for size in SIZES:
        for name in [named(archive, f"of-{size}", records[size][0]), "of-nobody"]:
            (root / f"of-{size}" / "ab").mkdir(parents=True, exist_ok=True)
            (root / f"of-{size}" / "ab" / f"{name}.sealed").touch()
    assert keep_only(root, archive.secret, records[16], only_known_folders=True) == 1, "of nobody, beside the known"
    assert len(list(root.glob("of-32/*/*"))) == 2, "nobody can tell whose these are"
    assert keep_only(root, archive.secret, records[16] + records[32]) == 1
    assert keep_only(root, archive.secret, records[16]) == 1


def named(archive: Archive, preparation: str, record) -> str:
    return _name(derive(archive.secret, NAMES), preparation, record)
