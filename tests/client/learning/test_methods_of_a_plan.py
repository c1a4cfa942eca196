"""Every method that a plan may name is reached from the plan's text and teaches, also where nobody has a label."""

import numpy as np
import pytest

from client.learning.patients import UNKNOWN, ArrayPatients
from client.learning.phase_settings import phase_settings
from client.learning.private_training import PrivateTraining
from client.learning.round_randomness import RoundRandomness
from client.private_gradients.settings import SpeedSettings
from common.networks.parameters import flatten
from common.networks.registry import build_network
from common.plan.errors import PlanInvalidError
from common.plan.phases import Method
from common.plan.reading import parse_plan

SIZE = 8
TRAINS = {Method.STANDARDISE: "feature_norm", Method.RIDGE: "head", Method.PRIOR: "prior"}
NETWORKS = {Method.MEAN_TEACHER: "unet", Method.PRIOR: "unet", Method.RECONSTRUCTION: "autoencoder"}
LABELLED_ONLY = {Method.SUPERVISED, Method.PRIOR}


class NoNoise:
    """Zeros, so that what is left comes from patients."""

    def integers(self, length, stddev):
        return np.zeros(length, np.int64)


def plan_with(document, method):
    """The plan of the coordinator's command with one phase of ``method``, for both strata."""
    document["phases"][0] |= {
        "method": method.value,
        "trainable": TRAINS.get(method, "all"),
        "rounds": 1,
        "labelled_sampling_rate": 1.0,
        "unlabelled_sampling_rate": 0.0 if method in LABELLED_ONLY else 1.0,
        "confidence_threshold": 0.0,
    }
    if method is Method.PRIOR:  # which is the first phase of two, in a network that has one
        document["network"] = {"name": "unet", "width": 4, "prior": True}
        document["phases"].append(document["phases"][0] | {"name": "next", "method": "supervised", "trainable": "all"})
    return parse_plan(document, "plan")


def site(labelled, unlabelled, *, segmentation):
    random = np.random.default_rng(0)
    count = labelled + unlabelled
    labels = np.full((count, SIZE, SIZE) if segmentation else count, UNKNOWN)
    labels[:labelled] = random.integers(0, 2, labels[:labelled].shape)
    images = random.random((count, SIZE, SIZE)).astype(np.float32)
    return ArrayPatients(images, labels, [f"p{number}" for number in range(count)], dimensions=2)


def round_of(document, method, *, labelled, unlabelled):
    """One round at one site, from the plan's text to the integers that may leave."""
    segmentation = method in {Method.MEAN_TEACHER, Method.PRIOR}
    if segmentation:
        document["task"]["kind"] = "segmentation"
    plan = plan_with(document, method)
    network = build_network(
        NETWORKS.get(method, "small_cnn"),
        dimensions=2,
        classes=len(plan.task.classes),
        width=4,
        zero_head=False,
        prior_size=(SIZE, SIZE) if method is Method.PRIOR else (),
    )
    phase = PrivateTraining(
        network,
        site(labelled, unlabelled, segmentation=segmentation),
        phase_settings(plan, plan.phases[0], plan.sites[0]),
        noise=NoNoise(),
        speed=SpeedSettings(engine="loop"),
    )
    start = flatten(network, phase.order)
    return phase.train_round(1, start, randomness=RoundRandomness(bytes(32))).vector, plan


@pytest.mark.parametrize("method", Method)
def test_a_round_of_a_plan_teaches_with(method, plan_document):
    moved, plan = round_of(plan_document, method, labelled=3, unlabelled=3)
    most = plan.phases[0].clipping_norm * 6
    assert 0 < np.linalg.norm(moved) <= most


@pytest.mark.parametrize("method", [method for method in Method if method not in LABELLED_ONLY])
def test_a_site_where_nobody_has_a_label_takes_part_in(method, plan_document):
    moved, plan = round_of(plan_document, method, labelled=0, unlabelled=3)
    phase = plan.phases[0]
    most = phase.clipping_norm * phase.unlabelled_clip_ratio * 3
    assert 0 < np.linalg.norm(moved) <= most


def test_a_proximal_term_in_a_plan_needs_local_noise(plan_document):
    plan_document["phases"][0]["proximal_weight"] = 0.1
    with pytest.raises(PlanInvalidError, match="proximal"):
        parse_plan(plan_document, "plan")
