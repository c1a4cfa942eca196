"""Pictures in colour where patients teach: from the cache, through views, into the clipped sum."""

import numpy as np
import pytest
import torch

from client.dicom.cache import Cache
from client.dicom.ingest import ingest
from client.dicom.record import Stratum
from client.dicom.settings import settings_for
from client.final_model.predicting import predict
from client.learning.cached_patients import CachedPatients
from client.learning.training import PhaseTraining
from client.learning.training_settings import Task, TrainingSettings
from client.learning.views import WEAK, draw_views, hide_patches, view
from client.private_gradients.settings import SpeedSettings
from common.networks.registry import build_network
from common.plan.reading import parse_plan
from simulation.drawing.scanners import Scanner
from simulation.hospitals.hospital import Holdings, write_hospital

SECRET = bytes(range(32))
SIDE, PATIENTS = 16, 6


@pytest.fixture
def plan(plan_document):
    plan_document["task"] |= {"modalities": ["OP"]}
    plan_document["image"] = {"size_px": [SIDE, SIDE], "intensity": "luminance", "channels": 3}
    plan_document["evaluation"]["held_out"] = False
    return parse_plan(plan_document, "plan")


@pytest.fixture
def hospital(tmp_path):
    """Six patients with one fundus photograph each, all labelled; patient n is red n, green 2 n, blue 3 n."""
    shades = np.arange(1, PATIENTS + 1)[:, None] * np.array([10, 20, 30])
    images = np.broadcast_to(shades[:, None, None, :], (PATIENTS, SIDE, SIDE, 3)).astype(np.uint8)
    people = np.arange(PATIENTS)
    holdings = Holdings(images, people % 2, people, np.ones(PATIENTS, bool), ("normal", "abnormal"), "OP")
    write_hospital(tmp_path / "site", holdings, Scanner(), seed=1)
    return tmp_path / "site"


@pytest.fixture
def patients(hospital, plan, tmp_path):
    settings = settings_for(plan.task, plan.image)
    report = ingest(
        hospital / "scans", tmp_path / "cache", settings=settings, secret=SECRET, labels=hospital / "labels.csv"
    )
    assert (report.records, report.rejected) == (PATIENTS, {})
    return CachedPatients(Cache.open(tmp_path / "cache", SECRET), plan)


def test_a_patient_is_read_in_three_channels_and_changes_the_sum(patients, plan):
    keys = patients.keys(Stratum.LABELLED)
    images = torch.cat([patients.read(key).images for key in keys])
    assert images.shape == (PATIENTS, 3, SIDE, SIDE)
    shades = torch.round(images[:, :, 0, 0] * 255)
    assert torch.equal(shades[:, 1:], shades[:, :1] * torch.tensor([2.0, 3.0]))
    settings = TrainingSettings(
        task=Task.CLASSIFICATION, classes=2, dimensions=2, labelled_sampling_rate=1.0, noise_multiplier=1.0,
    )  # fmt: skip
    network = build_network("small_cnn", dimensions=2, classes=2, width=4, zero_head=False, seed=1, channels=3)
    loop = SpeedSettings(engine="loop")
    training = PhaseTraining(network, patients, settings, speed=loop, input_shape=plan.image.input_shape)
    assert training.begin_round(1).values.any()
    grey = PhaseTraining(network, patients, settings, speed=loop, input_shape=(1, SIDE, SIDE))
    assert not grey.begin_round(1).values.any(), "a record of another form counts as an empty one"


def test_new_photographs_are_predicted_in_colour(hospital, plan, tmp_path):
    class Redness(torch.nn.Module):
        def forward(self, images):
            assert images.shape[1:] == (3, SIDE, SIDE)
            return torch.stack([0 * images.mean((1, 2, 3)), images[:, 0].mean((1, 2)) - 1], dim=1)

    told = predict(Redness(), plan, hospital / "scans", temporary=tmp_path)
    assert not told.refused
    red = sorted(row.figures[1] for row in told.rows)
    expected = torch.sigmoid(torch.arange(1, PATIENTS + 1) * 10 / 255 - 1).tolist()
    assert np.allclose(red, expected, atol=1e-4)


def test_a_view_moves_and_dims_the_three_channels_alike():
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(2, 1, SIDE, SIDE, generator=generator).expand(-1, 3, -1, -1)
    draws = draw_views(2, dimensions=2, generator=generator)
    for made in (view(images, draws, WEAK), hide_patches(images, 0.5, draws)):
        assert made.shape == images.shape
        assert torch.equal(made[:, 0], made[:, 2])
        assert not torch.equal(made, images)
