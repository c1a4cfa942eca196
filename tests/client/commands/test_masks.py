"""Masks by command: of new scans, and of what nobody has labelled, which come back through ingest as labels."""

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydicom import dcmread
from torch import nn
from typer.testing import CliRunner

from client.__main__ import app
from client.commands import annotate as annotate_command
from client.commands import model as model_command
from client.dicom.cache import Cache
from client.dicom.errors import NothingUsableError
from client.dicom.ingest import ingest
from client.dicom.settings import settings_for
from client.final_model import kept_score
from client.final_model.receiving import FinalModel
from client.installation.folder import SiteFolder
from client.learning.patients import PatientScans
from client.status_page.own_score import own_score_html
from common.errors import FileUnreadableError, OutputExistsError
from common.files import write_new
from common.plan.privacy import Evaluation
from common.plan.task import Image, Network, Task
from simulation.drawing.scanners import Scanner
from simulation.hospitals.hospital import Holdings, write_hospital
from simulation.hospitals.phantoms import render_segmented

SHAPE, SPACING_MM = (12, 32, 32), (5.0, 2.0, 2.0)
PATIENTS, LABELLED = 3, 1
NETWORK, STUDY = Network(name="unet"), SimpleNamespace(name="lesions-of-ct")


class Threshold(nn.Module):
    """Calls every voxel brighter than one half a lesion."""

    def forward(self, images):
        return torch.cat([0.5 - images, images - 0.5], 1)


class Plan:
    """The parts of a plan that masks need."""

    network, study, evaluation = NETWORK, STUDY, Evaluation()

    def __init__(self, task: Task, image: Image) -> None:
        self.task, self.image = task, image

    def digest(self) -> str:
        return "cd" * 32


def plan_for(**task) -> Plan:
    values = {"kind": "segmentation", "classes": ("background", "lesion"), "modalities": ("CT",), "dimensions": 3}
    image = Image(size_px=SHAPE, spacing_mm=SPACING_MM, intensity="ct_window", window_hu=(0.0, 2048.0))
    return Plan(Task(**(values | task)), image)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Scans of three patients, of whom one has an expert's SEG beside them, and the cache of their ingest."""
    place = tmp_path_factory.mktemp("hospital")
    images, found = render_segmented("ct", np.ones(PATIENTS, int), np.random.default_rng(3), SHAPE)
    known = np.arange(PATIENTS) < LABELLED
    holdings = Holdings(
        images, np.ones(PATIENTS, int), np.arange(PATIENTS), known, ("background", "lesion"), "CT", found, SPACING_MM
    )
    write_hospital(place / "hospital", holdings, Scanner(), seed=1)
    return place / "hospital" / "scans"


@pytest.fixture
def site(tmp_path, written):
    """A site folder with a secret, and the cache of the scans (which lie in a copy that the test may add to)."""
    folder = SiteFolder(tmp_path / "site")
    folder.path.mkdir(mode=0o700)
    write_new(folder.secret, bytes(range(32)), 0o600)
    scans = tmp_path / "scans"
    for file in written.rglob("*"):
        if file.is_file():
            target = scans / file.relative_to(written)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    plan = plan_for()
    report = ingest(scans, folder.cache, settings=settings_for(plan.task, plan.image), secret=bytes(range(32)))
    assert (report.patients, report.labelled_patients) == (PATIENTS, LABELLED)
    return folder, scans


@pytest.fixture
def command(monkeypatch):
    """Run a command with a model that calls bright voxels a lesion; returns its JSON, raises what it raised."""

    def run(*words, plan=None):
        model = FinalModel("ab" * 32, plan or plan_for(), Threshold(), {}, {})
        for module in (model_command, annotate_command):
            monkeypatch.setattr(module, "open_model", lambda folder, digest: model)
        done = CliRunner().invoke(app, [str(word) for word in (*words, "--json")])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return json.loads(done.stdout) if done.exit_code == 0 else done

    return run


def test_what_was_annotated_comes_back_through_ingest_as_labels(site, command, tmp_path):
    folder, scans = site
    before = sorted(scans.rglob("*"))
    told = command("annotate", scans, "--output", tmp_path / "masks", "--site-folder", folder.path)
    assert (told["masks_written"], told["changed"], told["masks_lacking"]) == (PATIENTS - LABELLED, 0, {})
    masks = sorted((tmp_path / "masks").iterdir())
    assert [file.name for file in masks] == ["annotation-00001.dcm", "annotation-00002.dcm"]
    assert [file.stat().st_mode & 0o777 for file in masks] == [0o600, 0o600]
    assert sorted(scans.rglob("*")) == before  # the scans are only read
    (scans / "corrected").mkdir()
    for file in masks:
        (scans / "corrected" / file.name).write_bytes(file.read_bytes())
    plan = plan_for()
    report = ingest(scans, folder.cache, settings=settings_for(plan.task, plan.image), secret=bytes(range(32)))
    assert (report.patients, report.labelled_patients, dict(report.rejected)) == (PATIENTS, PATIENTS, {})
    cache = Cache.open(folder.cache, bytes(range(32)))
    owners = {dcmread(file).PatientID for file in masks}
    assert len(owners) == PATIENTS - LABELLED
    agreeing = [
        (cache.read_label_map(record.record_id) == (cache.read(record.record_id) > 0.5)).all()
        for record in cache.records
    ]
    assert sum(agreeing) >= PATIENTS - LABELLED, "the label is what the model drew, voxel for voxel"


def test_a_series_that_changed_since_it_was_ingested_is_not_drawn_on(site, command, tmp_path):
    folder, scans = site
    for file in scans.rglob("*.dcm"):
        file.write_bytes(file.read_bytes() + b"\0\0")
    with pytest.raises(NothingUsableError, match="2 unlabelled scans are not here as they were ingested"):
        command("annotate", scans, "--output", tmp_path / "masks", "--site-folder", folder.path)
    assert not (tmp_path / "masks").exists()


def test_masks_of_new_scans_lie_beside_the_table(site, command, tmp_path):
    folder, scans = site
    told = command("model", "predict", scans, "--output", tmp_path / "new.csv", "--site-folder", folder.path)
    assert (told["studies"], told["masks_written"], told["masks_lacking"]) == (PATIENTS, PATIENTS, {})
    rows = list(csv.DictReader(io.StringIO((tmp_path / "new.csv").read_text().partition("\n")[2])))
    assert [row["mask"] for row in rows if not row["refused"]] == [f"series-{n:04d}.dcm" for n in (1, 2, 3)]
    assert all(float(row["ml_lesion"]) > 0 for row in rows if not row["refused"])
    assert [f"{series['ml_lesion']:.6g}" for series in told["series"]] == [row["ml_lesion"] for row in rows[:3]]
    masks = tmp_path / "new-masks"
    assert sorted(file.name for file in masks.iterdir()) == [f"series-{n:04d}.dcm" for n in (1, 2, 3)]
    assert masks.stat().st_mode & 0o777 == 0o700
    identifiers = {str(dcmread(file).PatientID) for file in masks.iterdir()}
    text = (tmp_path / "new.csv").read_text() + json.dumps({**told, "output": "", "masks": ""})
    assert not [identifier for identifier in identifiers if identifier in text]


PLACES = {
    "inside the scans": ("scans/masks", FileUnreadableError),
    "a folder that exists": ("site", OutputExistsError),
    "below nothing": ("nowhere/masks", OutputExistsError),
}


@pytest.mark.parametrize("case", PLACES)
def test_masks_go_to_a_new_folder_outside_of_the_scans(case, site, command, tmp_path):
    folder, scans = site
    place, error = PLACES[case]
    with pytest.raises(error):
        command(
            "model", "predict", scans, "--output", tmp_path / "new.csv", "--masks", tmp_path / place,
            "--site-folder", folder.path,
        )  # fmt: skip
    with pytest.raises(error):
        command("annotate", scans, "--output", tmp_path / place, "--site-folder", folder.path)
    assert not (tmp_path / "new.csv").exists()


@pytest.mark.parametrize("option", [("--as", "seg"), ("--masks", "masks")])
def test_options_of_masks_are_refused_where_a_model_draws_none(option, site, command, tmp_path):
    folder, scans = site
    plan = plan_for(kind="classification")
    words = ("model", "predict", scans, "--output", tmp_path / "new.csv", "--site-folder", folder.path)
    assert "for a segmentation" in command(*words, *option, plan=plan).output
    assert (
        "draws masks"
        in command("annotate", scans, "--output", tmp_path / "masks", "--site-folder", folder.path, plan=plan).output
    )


class HeldOut:
    """The patients of a cache, all of them held out and all of them teaching the mean label map."""

    def __init__(self, cache):
        self._cache, self._records = cache, cache.patients()

    def held_out(self):
        return [key for key, records in self._records.items() if any(record.has_label_map for record in records)]

    def keys(self, stratum):
        return self.held_out()

    def read(self, key):
        (record,) = self._records[key]
        image = torch.from_numpy(self._cache.read(record.record_id))[None, None]
        labels = torch.from_numpy(self._cache.read_label_map(record.record_id).astype(np.int64))[None]
        return PatientScans(image, labels)


def test_a_score_of_a_segmentation_tells_boundaries_and_the_atlas_and_may_be_kept_for_the_page(
    site, command, monkeypatch
):
    folder, _ = site
    cache = Cache.open(folder.cache, bytes(range(32)))
    monkeypatch.setattr(model_command, "_patients", lambda folder, model: HeldOut(cache))
    told = command("model", "score", "--site-folder", folder.path, plan=plan_for(lesions=("lesion",)))
    (row,) = told["classes"]
    assert not (folder.path / kept_score.FILE_NAME).exists()
    assert row["structure"]["tolerance_mm"] == max(SPACING_MM)
    assert row["structure"]["lesions"] == LABELLED
    assert row["structure"]["hd95_mm"] > 0
    assert row["dice_atlas_only"] is None  # of one patient nothing is averaged
    command("model", "score", "--for-page", "--site-folder", folder.path)
    kept = kept_score.load_score(folder)
    assert (kept.model, kept.study, len(kept.slices)) == ("ab" * 32, "lesions-of-ct", LABELLED)
    assert kept.slices[0][1].startswith(b"\x89PNG")
    sealed = (folder.path / kept_score.FILE_NAME).read_bytes()
    assert b"PNG" not in sealed
    assert (folder.path / kept_score.FILE_NAME).stat().st_mode & 0o777 == 0o600
    shown = str(own_score_html("north", kept))
    assert "lesion" in shown
    assert "/model/1.png" in shown
    kept_score.forget_score(folder)
    assert kept_score.load_score(folder) is None
    assert "No score was kept" in str(own_score_html("north", None))


def test_only_a_segmentation_has_outlines_to_keep(site, command):
    folder, _ = site
    done = command("model", "score", "--for-page", "--site-folder", folder.path, plan=plan_for(kind="classification"))
    assert done.exit_code == 2
    assert "task is classification" in done.output
