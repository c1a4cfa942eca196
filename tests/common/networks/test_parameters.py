"""The fixed order between a network and one float32 vector."""

import pytest
import torch

from common.networks.errors import NetworkUnsuitableError, WeightsInvalidError
from common.networks.parameters import flatten, layout, load, train_only
from common.networks.registry import IMAGE_NETWORKS, build_network


def network(name="small_cnn", classes=2):
    return build_network(name, dimensions=2, classes=classes, width=8, zero_head=False, seed=3)


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_a_vector_comes_back_bit_for_bit_after_loading(name):
    model = network(name)
    order = layout(model)
    vector = torch.randn(order.num_parameters)
    load(model, order, vector)
    assert torch.equal(flatten(model, order), vector)


def test_the_order_is_that_of_the_named_parameters_each_row_major():
    model = network()
    expected = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert torch.equal(flatten(model, layout(model)), expected)
    assert [e.offset for e in layout(model).entries[:3]] == [0, 72, 80]


def test_loading_the_head_leaves_the_encoder_alone():
    model = network()
    before = flatten(model, layout(model, "encoder"))
    order = layout(model, "head")
    load(model, order, torch.full((order.num_parameters,), 0.5))
    assert torch.equal(flatten(model, layout(model, "encoder")), before)
    assert bool((model.head.weight == 0.5).all())


def test_the_layout_digest_changes_with_network_part_and_classes_but_not_with_values():
    model = network()
    digest = layout(model).digest
    load(model, layout(model), torch.zeros(layout(model).num_parameters))
    others = {layout(network(classes=3)).digest, layout(network("residual")).digest, layout(model, "head").digest}
    assert layout(model).digest == digest
    assert len(others | {digest}) == 4


def test_the_order_of_the_prefixes_does_not_matter():
    model = network()
    assert layout(model, ["head", "encoder"]).digest == layout(model, ["encoder", "head"]).digest
    assert layout(model, ["all"]).digest == layout(model).digest


@pytest.mark.parametrize("trainable", ["hea", "head.weigh", "encoder.levels.", ["head", "tail"]])
def test_a_part_that_selects_nothing_is_refused(trainable):
    with pytest.raises(NetworkUnsuitableError, match="selects no parameter"):
        layout(network(), trainable)


BAD_VECTORS = {
    "one value too few": lambda n: torch.zeros(n - 1),
    "one value too many": lambda n: torch.zeros(n + 1),
    "a matrix of the right size": lambda n: torch.zeros(1, n),
    "float64": lambda n: torch.zeros(n, dtype=torch.float64),
    "a NaN at the end": lambda n: torch.cat([torch.zeros(n - 1), torch.tensor([float("nan")])]),
    "an infinity at the start": lambda n: torch.cat([torch.tensor([float("inf")]), torch.zeros(n - 1)]),
}


@pytest.mark.parametrize("kind", BAD_VECTORS)
def test_a_bad_vector_is_refused_and_nothing_is_written(kind):
    model = network()
    order = layout(model)
    before = flatten(model, order)
    with pytest.raises(WeightsInvalidError):
        load(model, order, BAD_VECTORS[kind](order.num_parameters))
    assert torch.equal(flatten(model, order), before)


def test_a_layout_of_another_network_is_refused():
    order = layout(network(classes=3))
    with pytest.raises(NetworkUnsuitableError, match="does not fit"):
        load(network(), order, torch.zeros(order.num_parameters))


def test_gradients_reach_only_the_trainable_part():
    model = network()
    train_only(model, layout(model, "head"))
    model(torch.randn(2, 1, 8, 8)).sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"head.weight", "head.bias"}
