"""What a patient's rows weigh."""

import dataclasses

import pytest
import torch

from client.dicom.record import Stratum
from client.learning.lessons import lesson_for
from client.learning.patients import UNKNOWN, PatientScans
from client.learning.round_randomness import KEY_BYTES, RoundRandomness
from client.learning.teacher import Teacher
from client.learning.training_settings import Method, Placement, Task, TrainingSettings
from common.networks.registry import build_network


@pytest.mark.parametrize(
    ("placement", "expected"), [(Placement.NONE, 0.3), (Placement.DISTRIBUTED, 1.0)], ids=["plain", "own clip"]
)
def test_the_mean_teacher_s_answers_have_the_plan_s_weight_where_no_clip_decides(placement, expected):
    settings = TrainingSettings(
        task=Task.SEGMENTATION,
        classes=2,
        dimensions=2,
        method=Method.MEAN_TEACHER,
        placement=placement,
        unlabelled_weight=0.3,
        labelled_sampling_rate=0.5,
        unlabelled_sampling_rate=0.5,
        expected_batch=1.0,
        noise_multiplier=0.0 if placement is Placement.NONE else 1.0,
    )
    teacher = Teacher(build_network("unet", dimensions=2, classes=2, width=4, zero_head=False), decay=0.9)
    patient = PatientScans(torch.rand(3, 1, 8, 8), torch.full((3, 8, 8), UNKNOWN))
    randomness = RoundRandomness(bytes(KEY_BYTES)).of_patient("somebody", step=0)
    rows = lesson_for(Stratum.UNLABELLED, settings, teacher).rows(patient, randomness)
    assert float(rows.weights.sum()) == pytest.approx(expected)


@pytest.mark.parametrize(("number", "share"), [(1, 0.0067), (3, 0.0067), (5, 0.2865), (7, 1.0), (50, 1.0)])
def test_the_mean_teacher_s_weight_ramps_up_from_the_round_in_which_it_begins(number, share):
    settings = TrainingSettings(
        task=Task.SEGMENTATION,
        classes=2,
        dimensions=2,
        method=Method.MEAN_TEACHER,
        placement=Placement.NONE,
        labelled_sampling_rate=0.5,
        unlabelled_sampling_rate=0.5,
        noise_multiplier=0.0,
        unlabelled_from_round=3,
        ramp_up_rounds=4,
    )
    assert settings.ramp(max(number, 3)) == pytest.approx(share, abs=1e-3)
    assert dataclasses.replace(settings, ramp_up_rounds=0).ramp(number) == 1
