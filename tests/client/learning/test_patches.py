"""Patches: parts of the very scan, foreground as often as the plan says, one clipped gradient a patient."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from client.dicom.record import Stratum
from client.learning.patch_rule import PatchRule
from client.learning.patches import patch_corner, patches_of
from client.learning.patients import UNKNOWN, ArrayPatients, PatientScans
from client.learning.round_randomness import KEY_BYTES, RoundRandomness
from client.learning.training import PhaseTraining
from client.learning.training_settings import Placement, Task, TrainingSettings
from client.learning.whole_scan import WholeScan
from client.private_gradients.settings import SpeedSettings
from common.networks.parameters import flatten, layout, load
from common.networks.registry import build_network

SIZE, PATCH = (14, 12, 10), (8, 4, 8)
RULE = PatchRule(PATCH, 3, 0.5)


def randomness(key="somebody", step=0):
    return RoundRandomness(bytes(KEY_BYTES)).of_patient(key, step=step)


def patient(scans=2, labelled=True):
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 3, (scans, *SIZE), generator=generator)
    return PatientScans(torch.rand(scans, 1, *SIZE, generator=generator), labels if labelled else labels * 0 + UNKNOWN)


def parts_of(whole):
    """Where each possible patch of a scan begins, by its bytes."""
    corners = product(*(range(have - want + 1) for have, want in zip(SIZE, PATCH, strict=True)))
    scan = whole.as_it_lies(0)
    return {scan.image_part(corner, PATCH).numpy().tobytes(): corner for corner in corners}


def test_a_patch_is_a_part_of_the_scan_and_of_its_label_map():
    whole = patient(scans=1)
    places, found = parts_of(whole), patches_of(whole, torch.tensor([0]), RULE, randomness(), classes=3)
    assert found.images.shape == (3, 1, *PATCH)
    for image, labels in zip(found.images, found.labels, strict=True):
        a, b, c = places[image.numpy().tobytes()]
        assert torch.equal(labels, whole.labels[0, a : a + 8, b : b + 4, c : c + 8])


def test_patches_are_dealt_over_the_chosen_scans_and_no_other_is_read():
    asked = []

    class Watched(PatientScans):
        def as_it_lies(self, index):
            asked.append(index)
            return super().as_it_lies(index)

    whole = patient(scans=5)
    found = patches_of(Watched(whole.images, whole.labels), torch.tensor([4, 1]), RULE, randomness(), classes=3)
    assert asked == [4, 1]
    assert len(found) == 3
    asked.clear()
    patches_of(Watched(whole.images, whole.labels), torch.tensor([3, 0, 2, 1]), RULE, randomness(), classes=3)
    assert asked == [3, 0, 2]


def test_each_patch_has_draws_of_its_own_and_each_patient_and_step():
    whole, chosen = patient(), torch.tensor([0, 1])

    def drawn(count=3, **who):
        return patches_of(whole, chosen, PatchRule(PATCH, count, 0.5), randomness(**who), classes=3).images

    assert torch.equal(drawn(), drawn())
    assert not torch.equal(drawn(), drawn(key="another"))
    assert not torch.equal(drawn(), drawn(step=1))
    rows = {row.numpy().tobytes() for row in drawn(count=6)}
    assert {row.numpy().tobytes() for row in drawn(count=4)} <= rows, "more patches move no other"


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.0, 0.12), (0.5, 0.4, 0.65), (1.0, 1.0, 1.0)])
def test_the_foreground_is_in_the_middle_as_often_as_the_plan_says(share, least, most):
    labels = np.zeros((40, 40), np.uint8)
    labels[20, 20], labels[30:33, 10:13] = 2, 1
    scan = WholeScan(np.zeros((1, 40, 40), np.uint16), labels, full_scale=65535.0)
    rule, middles = PatchRule((8, 8), 1, share), Counter()
    for number in range(400):
        top, left = patch_corner(scan, rule, torch.Generator().manual_seed(number), classes=3)
        assert 0 <= top <= 32
        assert 0 <= left <= 32
        middles[int(labels[top + 4, left + 4])] += 1
    assert least <= (middles[1] + middles[2]) / 400 <= most
    if share == 1:
        assert 0.4 < middles[2] / 400 < 0.6, "a class of one voxel as often as one of nine"


def test_without_anything_drawn_patches_lie_anywhere():
    for labels in (None, np.zeros((20, 20), np.uint8), np.full((20, 20), UNKNOWN)):
        scan = WholeScan(np.zeros((1, 20, 20), np.float32), labels)
        corners = {patch_corner(scan, PatchRule((8, 8), 1, 1.0), torch.Generator().manual_seed(n), classes=3)
                   for n in range(30)}  # fmt: skip
        assert len(corners) > 20


def settings(**changes):
    return TrainingSettings(
        **{
            "task": Task.SEGMENTATION, "classes": 3, "dimensions": 3, "placement": Placement.DISTRIBUTED,
            "labelled_sampling_rate": 1.0, "clipping_norm": 0.1, "noise_multiplier": 1.0, "most_scans": 2,
            "patches": RULE,
        } | changes
    )  # fmt: skip


def site(owners):
    whole, count = patient(scans=4), len(owners)
    return ArrayPatients(whole.images[:count].numpy(), whole.labels[:count].numpy(), owners, dimensions=3)


def summed(owners, **changes):
    network = build_network("unet", dimensions=3, classes=3, width=4, zero_head=False, seed=2)
    training = PhaseTraining(
        network, site(owners), settings(**changes), lattice_step=1e-7, speed=SpeedSettings(engine="loop"),
        input_shape=(1, *PATCH),
    )  # fmt: skip
    return training.begin_round(1, randomness=RoundRandomness(bytes(KEY_BYTES))).values.double() * 1e-7


def test_all_patches_of_a_patient_make_one_clipped_gradient():
    for patches in (1, 3, 8):
        norm = float(summed(["a", "a"], patches=PatchRule(PATCH, patches, 0.5)).norm())
        assert norm == pytest.approx(0.1, rel=1e-3), "however many patches, one patient adds one clipping norm"
    assert float(summed(["a", "b"]).norm()) > 0.101


def test_one_patient_more_changes_nothing_of_the_others():
    alone, both = summed(["a", "a"]), summed(["a", "a", "b"])
    assert float((both - alone).norm()) <= 0.1 * (1 + 1e-3)


def test_a_patients_gradient_is_the_mean_over_patches():
    network = build_network("unet", dimensions=3, classes=3, width=4, zero_head=False, seed=2)
    load(network, layout(network), flatten(network, layout(network)))
    training = PhaseTraining(
        network, site(["a"]), settings(), speed=SpeedSettings(engine="loop"), input_shape=(1, *PATCH)
    )
    rows = training._preparation.begun("a", training.lessons[Stratum.LABELLED], randomness("a"))
    assert rows.inputs.shape == (3, 1, *PATCH)
    assert float(rows.weights.sum()) == pytest.approx(1)


def test_a_scan_smaller_than_a_patch_adds_nothing():
    assert patches_of(patient(), torch.tensor([0]), PatchRule((16, 4, 8), 2, 0.5), randomness(), classes=3) is None
