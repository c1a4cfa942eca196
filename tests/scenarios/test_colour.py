"""A study in colour from files to the model: three channels learn a class that only colour tells, one does not."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from simulation.__main__ import app

SIDE, IMAGES = 16, 180
GREEN_FOR_RED = 0.299 / 0.587  # as much green as weighs a red in luminance
SCENARIO = """
format = "fedward-scenario/1"
name = "colour"
title = "A class that only colour tells"

[hospitals]
source = "archive"
archive = "colours.npz"
modality = "OP"
size_px = 16
sites = 3
labelled_share = 1.0
shift = 0.0
formats = true               # hospitals write different DICOM formats

[study.task]
kind = "classification"
classes = ["green", "red"]
modalities = ["OP"]
dimensions = 2

[study.image]
size_px = [16, 16]
intensity = "luminance"
maximum_scans_per_patient = 1
channels = {channels}

[study.network]
name = "small_cnn"
width = 8
initialisation = "seeded"

[study.privacy]
noise = "none"

[study.aggregation]
rule = "adam"
learning_rate = 0.005
average_decay = 0.0

[study.evaluation]
held_out = false

[study.secure_aggregation]
cohort_size = 3
threshold = 2
minimum_survivors = 3
assumed_colluders = 0
coordinate_range = 16384.0   # of sums that nothing clips

[study.timing]
training_timeout_s = 600.0
stage_timeout_s = 300.0      # a loaded machine loses nobody

[[study.phases]]
name = "all"
rounds = 6
trainable = "all"
labelled_sampling_rate = 1.0
noise_multiplier = 0.0

[comparisons]
pooled = true

[running]
workers = 0
comparison_processes = 1
"""


def drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Discs on a dark ground, red or green, of equal luminance whatever the class: (N, H, W, 3) uint8 and classes."""
    labels = np.arange(count) % 2
    y, x = np.mgrid[0:SIDE, 0:SIDE] - SIDE / 2
    centre, radius = rng.uniform(-3, 3, (count, 2)), rng.uniform(3, 6, count)
    disc = (y - centre[:, 0, None, None]) ** 2 + (x - centre[:, 1, None, None]) ** 2 < radius[:, None, None] ** 2
    colour = np.where(labels[:, None] == 1, [[120.0, 0.0, 0.0]], [[0.0, 120.0 * GREEN_FOR_RED, 0.0]])
    ground = rng.uniform(20, 60, (count, SIDE, SIDE, 1))
    images = ground + disc[..., None] * colour[:, None, None, :] + rng.normal(0, 4, (count, SIDE, SIDE, 3))
    return np.clip(np.rint(images), 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(15)
    images, labels = drawn(rng, IMAGES)
    test_images, test_labels = drawn(rng, 100)
    np.savez(
        folder / "colours.npz", train_images=images, train_labels=labels, test_images=test_images,
        test_labels=test_labels,
    )  # fmt: skip
    return folder


def answer(folder, channels: int) -> dict:
    file, out = folder / f"channels-{channels}.toml", folder / f"run-{channels}"
    file.write_text(SCENARIO.format(channels=channels))
    result = CliRunner().invoke(app, ["run", str(file), "--out", str(out), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.slow
def test_three_channels_learn_what_grey_cannot(archive):
    colour, grey = answer(archive, 3), answer(archive, 1)
    assert colour["auc"] > 0.95
    assert colour["compared"]["pooled"]["value"] > 0.95
    low, high = grey["auc_interval"]
    assert low < 0.5 < high
    model = load_file(archive / "run-3" / "study" / "model" / "model.safetensors")
    assert model["encoder.levels.0.0.weight"].shape == (8, 3, 3, 3)
    report = (archive / "run-3" / "report.html").read_text()
    assert "16 x 16 pixels, in colour" in report
