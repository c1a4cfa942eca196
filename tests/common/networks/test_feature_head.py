"""A head on the features of a public encoder: the same layout with and without PyTorch, and nothing crosses images."""

import pytest
import torch
from torch.nn import functional

from common.networks.errors import NetworkUnsuitableError
from common.networks.layouts import layout_of
from common.networks.parameters import flatten, layout
from common.networks.registry import ENCODER, build_network, network_shape
from common.networks.shapes import network_parameters

SIZES = [(2, 2, 0, 0), (12, 2, 0, 0), (816, 4, 0, 0), (12, 3, 5, 0), (12, 2, 0, 8), (816, 3, 5, 64)]


def head(features=12, classes=2, hidden_units=0, **how):
    size = {"features": features, "classes": classes, "hidden_units": hidden_units}
    return build_network(ENCODER, dimensions=2, width=16, **size, **how)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("part", ["all", "head", "feature_norm", ("feature_norm", "head")])
def test_the_layout_without_pytorch_is_that_of_the_head(sizes, part):
    names = ("features", "classes", "hidden_units", "projection")
    request = {"dimensions": 2, "width": 16} | dict(zip(names, sizes, strict=True))
    assert layout_of(network_parameters(ENCODER, **request), part) == layout(network_shape(ENCODER, **request), part)


@pytest.mark.parametrize("hidden_units", [0, 5])
def test_the_first_prediction_is_the_uniform_one_and_the_head_learns_from_it(hidden_units):
    network = head(hidden_units=hidden_units)
    logits = network(torch.randn(3, 12))
    assert logits.shape == (3, 2)
    assert not logits.any()
    functional.cross_entropy(logits, torch.zeros(3, dtype=torch.int64)).backward()
    last = [p for name, p in network.named_parameters() if name in {"head.weight", "head.output.weight"}]
    assert all(p.grad.any() for p in last)


def test_a_hidden_layer_starts_from_the_seed_and_a_linear_head_from_zero():
    one, other, linear = head(hidden_units=5, seed=1), head(hidden_units=5, seed=2), head(seed=1)
    assert not torch.equal(flatten(one, layout(one, "head.hidden")), flatten(other, layout(other, "head.hidden")))
    assert not flatten(linear, layout(linear, "head")).any()


def test_an_image_is_answered_alike_alone_and_beside_others():
    network = head(hidden_units=5, zero_head=False).double()
    rows = torch.randn(4, 12, dtype=torch.float64)
    torch.testing.assert_close(network(rows), torch.cat([network(row[None]) for row in rows]), rtol=0, atol=1e-12)


def test_a_projection_is_drawn_from_the_seed_and_trained_by_nobody():
    one, same, other = (head(projection=8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.projection.weight, same.projection.weight)
    assert not torch.equal(one.projection.weight, other.projection.weight)
    names = {entry.name for entry in layout(one, "all").entries}
    assert names == {"feature_norm.weight", "feature_norm.bias", "head.weight", "head.bias"}


def test_projected_features_are_sums_of_the_layer_normed_ones_and_keep_distances():
    network, rows = head(features=816, projection=256), torch.randn(40, 816) * 3 + 5
    normed = functional.layer_norm(rows, (816,))
    wanted = functional.layer_norm(normed @ network.projection.weight.T, (256,)) / 16
    torch.testing.assert_close(network.features(rows), wanted)
    near, far = torch.pdist(network.features(rows)), torch.pdist(normed)
    assert torch.corrcoef(torch.stack([near, far]))[0, 1] > 0.4, "neighbours are no neighbours any more"


WRONG = {
    "an encoder without features": ({"name": ENCODER}, "0 features"),
    "one feature, of which a norm leaves nothing": ({"name": ENCODER, "features": 1}, "1 features"),
    "features of a network with images": ({"name": "unet", "features": 12}, "only 'encoder'"),
    "hidden units of a network with images": ({"name": "small_cnn", "hidden_units": 8}, "only 'encoder'"),
    "a projection of a network with images": ({"name": "unet", "projection": 8}, "only 'encoder'"),
    "a projection to as many": ({"name": ENCODER, "features": 12, "projection": 12}, "fewer than the 12 features"),
    "a projection to a few": ({"name": ENCODER, "features": 12, "projection": 7}, "8 or more"),
    "too many features": ({"name": ENCODER, "features": 1 << 20}, "features is 1048576"),
}


@pytest.mark.parametrize(("change", "sentence"), WRONG.values(), ids=WRONG)
def test_what_no_head_can_be_is_refused_with_and_without_pytorch(change, sentence):
    request = {"dimensions": 2, "classes": 2, "width": 16} | change
    for look in (network_parameters, network_shape):
        with pytest.raises(NetworkUnsuitableError, match=sentence):
            look(**request)
