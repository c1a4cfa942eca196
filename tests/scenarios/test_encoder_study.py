"""A study with a public encoder from files to the report: features once, a private head, the same test images."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from client.features.counting import count_features
from client.installation.folder import SiteFolder
from common.plan.reading import read_plan
from simulation.__main__ import app
from simulation.drawing.made_up_encoder import made_up_encoder
from simulation.study.run_folder import RunFolder

SIDE = 16
SCENARIO = """
format = "fedward-scenario/1"
name = "encoder"
title = "Stripes in one direction or the other"

[hospitals]
source = "archive"
archive = "stripes.npz"
modality = "DX"
size_px = 16
sites = 3
labelled_share = 0.5
shift = 0.0
formats = true               # hospitals write different DICOM formats

[study.task]
kind = "classification"
classes = ["along", "across"]
modalities = ["DX"]
dimensions = 2

[study.image]
size_px = [16, 16]
intensity = "luminance"
maximum_scans_per_patient = 1

[study.network]
name = "encoder"

[study.network.encoder]
file = "encoder.onnx"
card = "encoder.toml"
views = 2

[study.privacy]
noise = "distributed"
epsilon = 50.0
delta = 1e-3

[study.aggregation]
rule = "mean"
learning_rate = 8.0

[study.evaluation]
held_out = false

[[study.phases]]
name = "standardise"
rounds = 2
method = "standardise"
trainable = "feature_norm"
labelled_sampling_rate = 0.0
unlabelled_sampling_rate = 1.0
unlabelled_clip_ratio = 1.0
clipping_norm = 2.0

[[study.phases]]
name = "head"
rounds = 10
trainable = "head"
labelled_sampling_rate = 1.0

[comparisons]
without_privacy = true

[running]
workers = 0
comparison_processes = 1
"""


def drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes along or across, at a random place: (N, H, W) uint8 and classes."""
    labels = np.arange(count) % 2
    stripes = 128 + 60 * np.sin(np.arange(SIDE) * 1.3 + rng.uniform(0, 6, (count, 1)))
    images = np.where(labels[:, None, None] == 0, stripes[:, None, :], stripes[:, :, None])
    noisy = np.broadcast_to(images, (count, SIDE, SIDE)) + rng.normal(0, 8, (count, SIDE, SIDE))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("stripes"), np.random.default_rng(15)
    images, labels = drawn(rng, 240)
    tests = dict(zip(("test_images", "test_labels"), drawn(rng, 100), strict=True))
    np.savez(folder / "stripes.npz", train_images=images, train_labels=labels, **tests)
    made_up_encoder(folder, size_px=(SIDE, SIDE), channels=3)
    (folder / "encoder-study.toml").write_text(SCENARIO)
    return folder


def run(*words):
    return CliRunner().invoke(app, ["run", *map(str, words), "--json"], catch_exceptions=False)


@pytest.mark.slow
def test_a_study_on_features_of_an_encoder_learns_and_its_features_are_computed_once(folder):
    out = folder / "run"
    result = run(folder / "encoder-study.toml", "--out", out)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["auc"] > 0.8
    assert answer["compared"]["no-noise"]["value"] > 0.8
    assert answer["epsilon"] <= answer["epsilon_promised"]
    site = SiteFolder(RunFolder(out).site("hospital-1"))
    plan = read_plan(RunFolder(out).study.plan)
    assert plan.network.encoder.views == 2
    assert count_features(site, plan).missing == 0
    assert "trained on: none: nobody trained it" in (out / "report.html").read_text(encoding="utf-8")
    kept = {path: path.stat().st_mtime_ns for path in site.features.rglob("*.sealed")}
    again = run(folder / "encoder-study.toml", "--out", out, "--resume")
    assert json.loads(again.stdout)["auc"] == answer["auc"]
    assert {path: path.stat().st_mtime_ns for path in site.features.rglob("*.sealed")} == kept


@pytest.mark.slow
def test_another_encoder_than_the_cards_is_refused_before_any_scan_is_drawn(folder):
    (folder / "other.onnx").write_bytes(b"another")
    with pytest.raises(Exception, match="not the file of the card"):
        run(folder / "encoder-study.toml", "--out", folder / "refused", "--encoder", folder / "other.onnx")
    assert not (folder / "refused" / "hospitals").exists()
