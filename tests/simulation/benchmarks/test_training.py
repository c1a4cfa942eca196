"""The training benchmark runs, compares three steps that compute the same thing, and prints what was agreed."""

import json

import numpy as np
import pytest
import torch

from client.private_gradients.engine import PrivateGradient
from common.networks.parameters import layout
from simulation.benchmarks import training, training_steps, training_subjects
from simulation.benchmarks.peak_memory import peak_mb
from simulation.benchmarks.training_steps import OpacusGhostStep, OpacusStep, OurStep, PlainStep

SMALL = training_subjects.Subject("tiny", "small_cnn", 2, width=4, size=8, patients=3, patients_per_stack=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_json_has_the_agreed_shape_and_a_row_for_each_network(capsys):
    training.training(repeats=1, small=True, as_json=True)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == len(training_subjects.IMAGES_OF_28) + len(training_subjects.HOSPITAL_SIZE)
    for row in rows:
        agreed = "model parameters size patients ratio_to_plain opacus_ratio_to_plain opacus_ghost_ratio_to_plain"
        assert {*agreed.split(), "peak_mb", "plain_peak_mb", "trial_cpu_s"} <= set(row)
        assert row["ratio_to_plain"] > 0
        assert row["peak_mb"] > 0


@pytest.mark.filterwarnings("ignore")
def test_without_noise_and_clip_the_private_steps_take_the_plain_step(monkeypatch):
    monkeypatch.setattr(training_steps, "CLIPPING_NORM", 50.0)
    monkeypatch.setattr(training_steps, "NOISE_MULTIPLIER", 0.0)
    monkeypatch.setattr(training_steps.torch, "normal", lambda mean, deviation, shape: torch.zeros(shape))
    images, labels = SMALL.scans()
    networks = [SMALL.build() for _ in range(4)]
    ours = OurStep(networks[1], images, labels, training_subjects.cross_entropy, patients_per_stack=2)
    monkeypatch.setattr(ours._randomness, "lattice_noise", lambda count, **_: np.zeros(count, dtype=np.int64))
    steps = [PlainStep(networks[0], images, labels, training_subjects.cross_entropy), ours]
    steps.append(OpacusStep(networks[2], images, labels, training_subjects.cross_entropy))
    steps.append(OpacusGhostStep(networks[3], images, labels, training_subjects.cross_entropy))
    start = weights(networks[0])
    for step in steps:
        step()
    moved = weights(networks[0]) - start
    for network in networks[1:]:
        assert float((weights(network) - start - moved).norm()) < 1e-3 * float(moved.norm())


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_peak_memory_sees_what_a_call_allocates_and_a_failure_is_said():
    def wasteful():
        return lambda: bytearray(256_000_000).count(1)

    def broken():
        raise OSError

    assert 200 < peak_mb(wasteful) < 320  # what earlier tests left behind may be given back meanwhile
    with pytest.raises(RuntimeError):
        peak_mb(broken)


def test_people_can_see_which_engine_was_taken():
    network = SMALL.build()
    images, labels = SMALL.scans()
    gradient = PrivateGradient(network, layout(network))
    assert gradient.engine_names == []
    step = OurStep(network, images, labels, training_subjects.cross_entropy, patients_per_stack=2)
    step()
    assert step.engine in {"loop", "vmap", "book_keeping"}
