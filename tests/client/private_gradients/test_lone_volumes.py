"""One volume at a time goes by oneDNN, with the bits that it has beside others, and everything else as before."""

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from client.private_gradients import engine as engines
from client.private_gradients.engine import ENGINES, PrivateGradient
from client.private_gradients.lone_volumes import LARGEST_LEFT_OUT, lone_volumes_by_onednn
from client.private_gradients.problem import Problem
from client.private_gradients.settings import EngineName
from client.private_gradients.stacks import PatientRows, rows_together
from common.networks.parameters import layout, train_only
from common.networks.registry import build_network

LAYERS = {
    "three by three": nn.Conv3d(4, 8, 3, padding=1),
    "without bias": nn.Conv3d(4, 8, 3, padding=1, bias=False),
    "stride and dilation": nn.Conv3d(4, 8, 3, padding=2, stride=2, dilation=2),
    "uneven kernel": nn.Conv3d(4, 8, (1, 3, 2), padding=(0, 1, 1)),
    "'same' padding": nn.Conv3d(4, 8, 3, padding="same"),
    "reflected padding": nn.Conv3d(4, 8, 3, padding=1, padding_mode="reflect"),
    "groups": nn.Conv3d(4, 8, 3, padding=1, groups=2),
    "one by one": nn.Conv3d(4, 8, 1),
}
BY_ONEDNN = ["three by three", "without bias", "stride and dilation", "uneven kernel"]


def spread(outputs: Tensor) -> Tensor:
    """A loss for any output shape, whose gradient is nowhere zero."""
    return (outputs.flatten(1).sin() + 0.3 * outputs.flatten(1) ** 2).mean(1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def answers(layer: nn.Module, images: Tensor) -> list[Tensor]:
    """The first row's output and gradient of the input, and the gradients of the layer's parameters."""
    images = images.clone().requires_grad_()
    outputs = layer(images)
    found = torch.autograd.grad(spread(outputs)[0], [images, *layer.parameters()])
    return [outputs[:1].detach(), found[0][:1], *found[1:]]


def kernels_of(work) -> dict[str, int]:
    """Names of PyTorch's own operations while ``work`` is done, and how often each was called."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    return {event.key: event.count for event in seen.key_averages()}


@pytest.mark.parametrize("name", LAYERS)
def test_one_volume_gets_the_answers_of_double_precision_for(name):
    layer, images = LAYERS[name].float(), random(1, 4, 9, 8, 7)
    with lone_volumes_by_onednn([layer]):
        found = answers(layer, images)
    expected = answers(layer.double(), images.double())
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm()) <= 1e-5 * float(other.norm())


@pytest.mark.parametrize("name", BY_ONEDNN)
def test_one_volume_has_the_bits_that_it_has_beside_another_for(name):
    layer, images = LAYERS[name].float(), random(2, 4, 9, 8, 7)
    with lone_volumes_by_onednn([layer]):
        alone = answers(layer, images[:1])
    beside = answers(layer, images)
    assert torch.equal(alone[0], beside[0])
    assert torch.equal(alone[1], beside[1])


@pytest.mark.parametrize("case", ["two volumes", "double", "large", "groups"])
def test_what_pytorch_does_well_by_itself_is_left_to_it(case):
    layer = LAYERS["groups" if case == "groups" else "three by three"].float()
    side = LARGEST_LEFT_OUT // (4 * 9) + 1
    images = {"two volumes": random(2, 4, 9, 8, 7), "large": random(1, 4, side, 9, 3)}.get(case, random(1, 4, 9, 8, 7))
    if case == "double":
        layer, images = layer.double(), images.double()
    plain = answers(layer, images)
    with lone_volumes_by_onednn([layer]):
        found = answers(layer, images)
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))


@pytest.mark.parametrize("name", [EngineName.LOOP, EngineName.BOOK_KEEPING, "layer_by_layer"])
@pytest.mark.parametrize("network", ["small_cnn", "unet"])
def test_no_engine_leaves_one_patient_s_volume_to_the_slow_kernel(name, network, monkeypatch):
    built = build_network(network, dimensions=3, classes=2, width=4, zero_head=False)
    order = layout(built)
    train_only(built, order)
    patient = PatientRows(random(1, 1, 8, 8, 8), (), torch.ones(1))

    def work() -> None:
        if name in ENGINES:
            ENGINES[name](Problem(built, order, spread), rows_together([patient]))
            return
        monkeypatch.setattr(engines, "CPU_WHOLE_GRADIENT_BYTES", 0)
        gradient = PrivateGradient(built, order)
        gradient.clipped_sum([rows_together([patient])], spread, clipping_norm=1.0)
        assert gradient.engine_names == ["layer_by_layer"]

    kernels = kernels_of(work)
    assert "aten::mkldnn_convolution" in kernels
    heads = 1 if network == "unet" else 0  # a 1x1 convolution, which is no slower there
    assert kernels.get("aten::slow_conv3d", 0) == heads


def test_layers_are_as_before_even_if_the_work_fails():
    layer = nn.Conv3d(1, 2, 3)
    with pytest.raises(ArithmeticError), lone_volumes_by_onednn([layer]):
        raise ArithmeticError
    assert "forward" not in vars(layer)


def test_weights_get_no_gradient_from_autograd_where_none_is_wanted():
    layer = nn.Conv3d(4, 8, 3, padding=1)
    with lone_volumes_by_onednn([layer], weights_too=False):
        assert not layer(random(1, 4, 8, 8, 8)).requires_grad
