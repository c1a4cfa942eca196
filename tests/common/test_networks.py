"""Networks: shapes, sizes, nothing that crosses patients, and start weights that every site shares."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import NetworkUnsuitableError
from common.networks.registry import NETWORK_NAMES, build_network
from common.networks.suitability import refuse_unsuitable
from common.parameters import flatten, layout

SIZES = {2: (13, 16), 3: (9, 8, 12)}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_every_network_keeps_its_stated_shapes_on_odd_sizes(name, dimensions):
    network = build_network(name, dimensions=dimensions, classes=3, width=8)
    images = torch.randn(2, 1, *SIZES[dimensions])
    expected = {"unet": (2, 3, *SIZES[dimensions]), "autoencoder": (2, 1, *SIZES[dimensions])}.get(name, (2, 3))
    assert network(images).shape == expected


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_an_image_is_answered_alike_alone_and_in_a_batch_so_nothing_crosses_patients(name, dimensions):
    network = build_network(name, dimensions=dimensions, classes=3, width=8, zero_head=False).double().train()
    images = torch.randn(4, 1, *SIZES[dimensions], dtype=torch.float64)
    together = network(images)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_no_forward_pass_changes_its_input_and_training_mode_changes_nothing(name, dimensions):
    network = build_network(name, dimensions=dimensions, classes=3, width=8, zero_head=False)
    images = torch.randn(2, 1, *SIZES[dimensions])
    copy = images.clone()
    assert torch.equal(network.train()(images), network.eval()(images))
    assert torch.equal(images, copy)


@pytest.mark.parametrize("name", [name for name in NETWORK_NAMES if name != "autoencoder"])
def test_a_zero_head_predicts_nothing_yet_every_head_parameter_gets_a_gradient(name):
    network = build_network(name, dimensions=2, classes=2, width=8, zero_head=True)
    logits = network(torch.randn(2, 1, 16, 16))
    assert not logits.any()
    nn.functional.cross_entropy(logits, torch.zeros(logits[:, 0].shape, dtype=torch.int64)).backward()
    assert all(p.grad is not None and p.grad.any() for n, p in network.named_parameters() if n.startswith("head."))


def test_the_small_network_has_14_to_100_thousand_parameters_for_its_usual_widths():
    sizes = {
        (2, width): layout(build_network("small_cnn", dimensions=2, classes=2, width=width)).num_parameters
        for width in (12, 16, 32)
    } | {(3, 8): layout(build_network("small_cnn", dimensions=3, classes=2, width=8)).num_parameters}
    assert all(13_000 <= size <= 100_000 for size in sizes.values()), sizes


def test_equal_arguments_give_bit_identical_start_weights_and_another_seed_does_not():
    networks = [build_network("residual", dimensions=2, classes=2, width=8, seed=seed) for seed in (5, 5, 6)]
    vectors = [flatten(network, layout(network)) for network in networks]
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])


def test_start_weights_ignore_the_global_generator_and_the_number_of_classes():
    torch.manual_seed(1)
    two = build_network("small_cnn", dimensions=2, classes=2, width=8)
    torch.manual_seed(2)
    five = build_network("small_cnn", dimensions=2, classes=5, width=8)
    assert torch.equal(flatten(two, layout(two, "encoder")), flatten(five, layout(five, "encoder")))


def test_start_weights_are_those_numpy_computes_from_the_written_rule():
    name = "encoder.levels.0.0.weight"
    network = build_network("small_cnn", dimensions=2, classes=2, width=8, seed=7)
    digest = hashlib.sha256(f"fedward start weights 7 {name}".encode()).digest()
    twister = np.random.MT19937()
    twister._legacy_seeding((int.from_bytes(digest[:8], "big") >> 1) & 0xFFFFFFFF)
    draws = twister.random_raw(8 * 9) % (1 << 24)
    expected = (2.0 * draws + 1 - (1 << 24)) / (1 << 24) * np.sqrt(6 / 9)
    start = network.get_parameter(name).detach().numpy().ravel()
    assert np.array_equal(start, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "resnet50"}, "unknown network 'resnet50'"),
        ({"name": "small_cmn"}, "did you mean 'small_cnn'"),
        ({"dimensions": 4}, "dimensions is 4"),
        ({"classes": 0}, "classes is 0"),
        ({"classes": True}, "classes is True"),
        ({"width": 10}, "multiple of 4"),
        ({"width": 2000}, "width is 2000"),
        ({"width": 8.0}, "width is 8.0"),
        ({"blocks": 0}, "blocks is 0"),
    ],
)
def test_a_bad_value_is_refused_with_a_sentence_that_names_it(change, sentence):
    settings = {"name": "small_cnn", "dimensions": 2, "classes": 2, "width": 8} | change
    with pytest.raises(NetworkUnsuitableError, match=sentence):
        build_network(settings.pop("name"), **settings)


class OwnScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (nn.BatchNorm2d(4), "batch statistics"),
        (nn.BatchNorm3d(4, track_running_stats=False), "batch statistics"),
        (nn.SyncBatchNorm(4), "batch statistics"),
        (nn.Dropout(0.1), "dropout"),
        (nn.ReLU(inplace=True), "in place"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "'zeros'"),
        (nn.InstanceNorm2d(4, track_running_stats=True), "buffer"),
        (OwnScale(), "engines do not know"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_layer_unfit_for_private_training_is_refused_by_name(layer, sentence):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(layer))
    with pytest.raises(NetworkUnsuitableError, match=rf"'1\.0'.*{sentence}"):
        refuse_unsuitable(network)
