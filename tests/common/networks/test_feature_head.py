"""A head on the features of a public encoder: the same layout with and without PyTorch, and nothing crosses images."""

import pytest
import torch
from torch.nn import functional

from common.networks.errors import NetworkUnsuitableError
from common.networks.layouts import layout_of
from common.networks.parameters import flatten, layout
from common.networks.registry import ENCODER, build_network, network_shape
from common.networks.shapes import network_parameters

SIZES = [(2, 2, 0), (12, 2, 0), (816, 4, 0), (12, 3, 5)]


def head(features=12, classes=2, hidden_units=0, **how):
    size = {"features": features, "classes": classes, "hidden_units": hidden_units}
    return build_network(ENCODER, dimensions=2, width=16, **size, **how)


@pytest.mark.parametrize(("features", "classes", "hidden_units"), SIZES)
@pytest.mark.parametrize("part", ["all", "head", "feature_norm", ("feature_norm", "head")])
def test_the_layout_without_pytorch_is_that_of_the_head(features, classes, hidden_units, part):
    request = {"dimensions": 2, "width": 16, "classes": classes, "features": features, "hidden_units": hidden_units}
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


WRONG = {
    "an encoder without features": ({"name": ENCODER}, "0 features"),
    "one feature, of which a norm leaves nothing": ({"name": ENCODER, "features": 1}, "1 features"),
    "features of a network with images": ({"name": "unet", "features": 12}, "only 'encoder'"),
    "hidden units of a network with images": ({"name": "small_cnn", "hidden_units": 8}, "only 'encoder'"),
    "too many features": ({"name": ENCODER, "features": 1 << 20}, "features is 1048576"),
}


@pytest.mark.parametrize(("change", "sentence"), WRONG.values(), ids=WRONG)
def test_what_no_head_can_be_is_refused_with_and_without_pytorch(change, sentence):
    request = {"dimensions": 2, "classes": 2, "width": 16} | change
    for look in (network_parameters, network_shape):
        with pytest.raises(NetworkUnsuitableError, match=sentence):
            look(**request)
