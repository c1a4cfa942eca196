"""Networks: shapes, sizes, nothing that crosses patients, and start weights that every site shares."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from common.networks.errors import NetworkUnsuitableError
from common.networks.parameters import flatten, layout
from common.networks.registry import IMAGE_NETWORKS, build_network
from common.networks.suitability import refuse_unsuitable

SIZES = {2: (13, 16), 3: (9, 8, 12)}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_every_network_keeps_its_stated_shapes_on_odd_sizes(name, dimensions):
    network = build_network(name, dimensions=dimensions, classes=3, width=8)
    images = torch.randn(2, 1, *SIZES[dimensions])
    masks, pictures = (2, 3, *SIZES[dimensions]), (2, 1, *SIZES[dimensions])
    expected = {"unet": masks, "level_head": masks, "autoencoder": pictures}.get(name, (2, 3))
    assert network(images).shape == expected


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_an_image_is_answered_alike_alone_and_in_a_batch_so_nothing_crosses_patients(name, dimensions):
    network = build_network(name, dimensions=dimensions, classes=3, width=8, zero_head=False).double().train()
    images = torch.randn(4, 1, *SIZES[dimensions], dtype=torch.float64)
    together = network(images)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_no_forward_pass_changes_its_input_and_training_mode_changes_nothing(name, dimensions):
    network = build_network(name, dimensions=dimensions, classes=3, width=8, zero_head=False)
    images = torch.randn(2, 1, *SIZES[dimensions])
    copy = images.clone()
    assert torch.equal(network.train()(images), network.eval()(images))
    assert torch.equal(images, copy)


@pytest.mark.parametrize("name", [name for name in IMAGE_NETWORKS if name != "autoencoder"])
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


# SHA-256 of all start weights (width 16 in two dimensions, 8 in three): a study that runs must never see others.
KNOWN_START_WEIGHTS = {
    ("small_cnn", 2): "53666e1f52ed958615af744158ee8660cc52df84d1b99023fd1064e55ae5b3f5",
    ("small_cnn", 3): "412c6904fbfd2cf56b6b861b370677579e72bf28f3c60134d8049b7fe384a9fd",
    ("residual", 2): "cf6db0c0dc3c0e73409307ec1942bd799933c4a32edbaaf7a711322989e37046",
    ("residual", 3): "6fd190c557b68cb2974cd7b21aeb8e550b0b24c47e6e422afda15f2be04e9e2f",
    ("unet", 2): "745fa8263852382f28d3ce5d4b796766271b0deec0ba3b4e5c84d7c0c13206a6",
    ("unet", 3): "68e41617e8b134d9406c6445bb403aed2d9a790285a98e0848037fde0ad547a2",
    ("autoencoder", 2): "613c144499c3600ba79e058c1b3c330d62915f17280e801e8ba9ce1c5aedf498",
    ("autoencoder", 3): "695d89ad3a624589984b1acef0a93c24b8e60c5444817c512610231cab4dbfb0",
}


@pytest.mark.parametrize(("name", "dimensions"), KNOWN_START_WEIGHTS)
def test_the_start_weights_of_every_network_are_those_they_always_were(name, dimensions):
    network = build_network(
        name, dimensions=dimensions, classes=3, width={2: 16, 3: 8}[dimensions], blocks=2, seed=11,
        zero_head=False,
    )  # fmt: skip
    vector = flatten(network, layout(network)).numpy()
    assert hashlib.sha256(vector.tobytes()).hexdigest() == KNOWN_START_WEIGHTS[name, dimensions]


def test_the_start_weights_of_a_wide_network_are_those_they_always_were():
    network = build_network("unet", dimensions=3, classes=3, width=32, seed=5)
    digest = hashlib.sha256(flatten(network, layout(network)).numpy().tobytes()).hexdigest()
    assert digest == "e2bf60d0aa61da2fedf70d60dfbc3f1cfc34dcd5924aa4b4581e8a808b7aa6f3"


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
