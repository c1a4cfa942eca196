"""A whole scan's answer from windows: that of a pointwise network, and MONAI's blending; weights add up to one."""

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from client.learning.patient_answers import mean_dice
from client.learning.patients import UNKNOWN, PatientScans
from client.learning.sliding_window import answered_label_map, blended_slabs, window_starts, window_weights
from client.learning.whole_scan import WholeScan
from common.networks.registry import build_network

CASES = {
    "flat": ((21, 18), (8, 6)),
    "no larger than a window along one side": ((8, 30), (8, 7)),
    "a volume": ((13, 9, 16), (6, 4, 7)),
    "the window itself": ((8, 8, 8), (8, 8, 8)),
}


class Pointwise(nn.Module):
    """Logits of a voxel from that voxel alone: (batch, 1, *size) -> (batch, 3, *size)."""

    def forward(self, images):
        return torch.cat([images, 1 - 2 * images, images**2], dim=1)


def scan_of(size, labels=None):
    levels = torch.randint(0, 65536, (1, *size), generator=torch.Generator().manual_seed(5)).numpy().astype(np.uint16)
    return WholeScan(levels, labels, full_scale=65535.0)


def whole_answer(network, scan, window):
    slabs = list(blended_slabs(network, scan, window))
    begins, ends = [begin for begin, _ in slabs], [begin + part.shape[1] for begin, part in slabs]
    assert begins == [0, *ends[:-1]]
    assert ends[-1] == scan.size[0]
    return torch.cat([part for _, part in slabs], dim=1)


@pytest.mark.parametrize(("size", "window"), CASES.values(), ids=CASES)
def test_a_pointwise_network_answers_by_windows_as_it_does_at_once(size, window):
    scan, network = scan_of(size), Pointwise()
    expected = network(scan.image_part((0,) * len(size), size)[None])[0]
    torch.testing.assert_close(whole_answer(network, scan, window), expected, rtol=1e-6, atol=1e-6)
    found, is_finite = answered_label_map(network, scan, window)
    assert is_finite
    assert (found == expected.argmax(0).numpy()).mean() > 0.999  # two logits may be equal but for rounding


@pytest.mark.parametrize(("size", "window"), CASES.values(), ids=CASES)
def test_windows_are_placed_and_blended_as_monai_does(size, window):
    scan = scan_of(size)
    network = build_network("unet", dimensions=len(size), classes=3, width=4, zero_head=False, seed=3)
    weights = window_weights(window[0])
    for side in window[1:]:
        weights = weights.unsqueeze(-1) * window_weights(side)
    images = scan.image_part((0,) * len(size), size)[None]
    with torch.no_grad():
        expected = sliding_window_inference(images, window, 1, network, overlap=0.5, roi_weight_map=weights)[0]
    torch.testing.assert_close(whole_answer(network, scan, window), expected, rtol=1e-4, atol=1e-4)


def test_a_window_weighs_most_in_its_middle_and_nowhere_nothing():
    weights = window_weights(16)
    assert weights.argmax() in (7, 8)
    assert torch.equal(weights, weights.flip(0))
    assert 0 < float(weights.min()) < 0.05 < float(weights.max()) <= 1
    assert window_starts(21, 8) == [0, 4, 8, 12, 13]


def test_an_answer_that_is_no_number_is_said_and_a_large_window_refused():
    class Broken(nn.Module):
        def forward(self, images):
            return torch.full((1, 2, *images.shape[2:]), torch.nan)

    assert not answered_label_map(Broken(), scan_of((8, 8)), (4, 4))[1]
    with pytest.raises(ValueError, match="does not fit"):
        answered_label_map(Pointwise(), scan_of((8, 8)), (9, 4))


def test_dice_by_windows_is_the_dice_of_the_same_answers():
    images = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(0, 3, (2, 12, 10), generator=torch.Generator().manual_seed(2))
    labels[0, :3] = UNKNOWN
    patient = PatientScans(images, labels)
    at_once = mean_dice(Pointwise(), patient, classes=3, most=2)
    by_windows = mean_dice(Pointwise(), patient, classes=3, most=2, window=(6, 4))
    assert by_windows[0] == pytest.approx(at_once[0])
    unlabelled = PatientScans(images, torch.full_like(labels, UNKNOWN))
    assert mean_dice(Pointwise(), unlabelled, classes=3, most=2, window=(6, 4)) is None
