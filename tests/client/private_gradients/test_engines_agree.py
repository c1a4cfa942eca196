"""Several engines, one answer: in float64 they agree to 1e-10 for every kind of layer, and with Opacus where it can."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from client.private_gradients import engine as engines
from client.private_gradients import forward_in_parts, layer_by_layer
from client.private_gradients.book_keeping import unsupported_layers
from client.private_gradients.choice import choose
from client.private_gradients.clipping import LatticeSum
from client.private_gradients.engine import ENGINES, PrivateGradient
from client.private_gradients.layer_gradients import _grouped, _one_by_one, _unfolded, unfold
from client.private_gradients.problem import Problem
from client.private_gradients.settings import EngineName, SpeedSettings
from client.private_gradients.stacks import PatientRows, public_example, stack_patients
from common.networks.errors import NetworkUnsuitableError
from common.networks.parameters import layout, train_only
from common.networks.registry import IMAGE_NETWORKS, build_network

LOOP = ENGINES[EngineName.LOOP]
BATCHED = [EngineName.VMAP, EngineName.BOOK_KEEPING]

# part bytes, positions a tap up to which a product is taken, whether all weights' gradients are computed again
ONE_AT_A_TIME = {
    "as it chooses": (forward_in_parts.PART_BYTES, forward_in_parts.PRODUCT_POSITIONS, False),
    "small parts, as products": (40, 10**9, True),
    "small parts, as convolutions": (40, 0, True),
    "one part, computed again": (1 << 20, 0, True),
}


def cross_entropy(outputs: Tensor, classes: Tensor) -> Tensor:
    losses = functional.cross_entropy(outputs, classes, reduction="none")
    return losses.flatten(1).mean(1) if losses.dim() > 1 else losses


def spread(outputs: Tensor) -> Tensor:
    """A loss for any output shape, whose gradient is nowhere zero."""
    return (outputs.flatten(1).sin() + 0.3 * outputs.flatten(1) ** 2).mean(1)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.GroupNorm(1, 2), nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        return images + self.body(images)


class Reused(nn.Module):
    """One layer called twice, and one parameter shared by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(2, 2, 3, padding=1)
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.second.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(self.shared(torch.tanh(self.shared(images)))))


class Unreached(nn.Module):
    """A layer that no output needs."""

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.used = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        self.idle(images)
        return self.used(images)


class SlicesAsBatch(nn.Module):
    """A network that treats the slices of a volume as a batch of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.slices = nn.Conv2d(2, 2, 3)

    def forward(self, volumes: Tensor) -> Tensor:
        slices = volumes.transpose(1, 2).flatten(0, 1)
        return self.slices(slices).unflatten(0, (volumes.shape[0], -1))


class Bare(nn.Module):
    """A parameter of its own: book-keeping cannot do it, the others can."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.7, 1.3]).view(1, 2, 1, 1))
        self.after = nn.Conv2d(2, 3, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.after(images * self.scale)


def _padded(mode: str, dimensions: int, **options: object) -> nn.Module:
    convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    return convolution(2, 4, 3, padding_mode=mode, **{"padding": 1, **options})


LAYERS = {
    **{f"{d}-D convolution, {mode} padding": (_padded(mode, d), d) for d in (1, 2, 3) for mode in ("zeros", "reflect")},
    "2-D convolution, circular padding": (_padded("circular", 2), 2),
    "2-D convolution, replicated padding": (_padded("replicate", 2), 2),
    "2-D convolution, 'same' padding": (_padded("zeros", 2, padding="same", dilation=2), 2),
    "2-D convolution, stride, dilation, groups": (_padded("zeros", 2, stride=2, dilation=2, groups=2, padding=2), 2),
    "3-D convolution, stride, dilation, groups": (_padded("zeros", 3, stride=2, dilation=2, groups=2, padding=2), 3),
    "1x1 convolution with groups and stride": (nn.Conv2d(2, 4, 1, groups=2, stride=2), 2),
    "3-D 1x1 convolution": (nn.Conv3d(2, 4, 1), 3),
    "2-D convolution without bias": (nn.Conv2d(2, 3, 3, bias=False), 2),
    "2-D transposed convolution": (nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), 2),
    "3-D transposed convolution": (nn.ConvTranspose3d(2, 3, 2, stride=2), 3),
    "linear over the last axis": (nn.Linear(5, 3), 2),
    "linear on flat rows": (nn.Sequential(nn.Flatten(), nn.Linear(50, 3)), 2),
    "group norm": (nn.Sequential(nn.Conv2d(2, 4, 1), nn.GroupNorm(2, 4)), 2),
    "group norm in 3-D": (nn.GroupNorm(1, 2), 3),
    "group norm of vectors": (nn.Sequential(nn.Flatten(), nn.GroupNorm(2, 50)), 2),
    "layer norm": (nn.LayerNorm([5, 5]), 2),
    "residual block": (Residual(), 2),
    "a layer used twice, a weight shared": (Reused(), 2),
    "a layer nobody needs": (Unreached(), 2),
    "slices as a batch": (SlicesAsBatch(), 3),
}


def records(size: tuple[int, ...], rows: list[int], *, channels: int = 2, seed: int = 0) -> list[PatientRows]:
    """Patients with the given numbers of rows, unequal weights, no targets, float64."""
    generator = torch.Generator().manual_seed(seed)
    return [
        PatientRows(
            torch.randn(count, channels, *size, generator=generator, dtype=torch.float64),
            (),
            torch.rand(count, generator=generator, dtype=torch.float64) + 0.1,
        )
        for count in rows
    ]


def gradients(engine: EngineName, network: nn.Module, patients, criterion, *, per_stack: int = 3, trainable="all"):
    """The clipped sum, with a clipping norm that clips some patients and not others, straight from one engine."""
    order = layout(network, trainable)
    train_only(network, order)
    clipped = fine_sum(order.num_parameters)
    rows = max(len(patient.weights) for patient in patients)
    for stack in stack_patients(patients, patients_per_stack=per_stack, rows_per_patient=rows):
        clipped.add(ENGINES[engine](Problem(network, order, criterion), stack.silenced()), clipping_norm=0.7)
    return clipped.vector


def fine_sum(num_parameters: int) -> LatticeSum:
    """A sum on a lattice so fine that it does not show in 1e-10."""
    return LatticeSum(num_parameters, step=2.0**-44, device=torch.device("cpu"))


def summed(engine: EngineName, network: nn.Module, patients, criterion) -> Tensor:
    """The same through the interface that the training page uses."""
    gradient = PrivateGradient(network, layout(network), SpeedSettings(engine))
    rows = max(len(patient.weights) for patient in patients)
    stacks = stack_patients(patients, patients_per_stack=3, rows_per_patient=rows)
    total = fine_sum(layout(network).num_parameters)
    return gradient.clipped_sum(stacks, criterion, clipping_norm=0.7, total=total).vector


def one_at_a_time(network: nn.Module, patients, criterion, *, trainable="all") -> Tensor:
    """The same with stacks of one patient, which are done layer by layer."""
    order = layout(network, trainable)
    gradient = PrivateGradient(network, order)
    rows = max(len(patient.weights) for patient in patients)
    stacks = stack_patients(patients, patients_per_stack=1, rows_per_patient=rows)
    total = gradient.clipped_sum(stacks, criterion, clipping_norm=0.7, total=fine_sum(order.num_parameters))
    assert gradient.engine_names == ["layer_by_layer"]
    return total.vector


@pytest.fixture(params=ONE_AT_A_TIME)
def one_way(request, monkeypatch):
    """Each way to a layer's gradient, forced on layers that are too small to need it."""
    part_bytes, product_positions, again = ONE_AT_A_TIME[request.param]
    monkeypatch.setattr(engines, "CPU_WHOLE_GRADIENT_BYTES", 0)
    monkeypatch.setattr(forward_in_parts, "PART_BYTES", part_bytes)
    monkeypatch.setattr(forward_in_parts, "PRODUCT_POSITIONS", product_positions)
    if again:
        monkeypatch.setattr(layer_by_layer, "_computed_again", lambda layer, x, g: layer_by_layer._divisible(layer))


def assert_equal(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == torch.float64
    assert float(expected.norm()) > 1e-3
    assert float((found - expected).norm()) <= 1e-10 * float(expected.norm())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rows", [[1, 1, 1, 1], [3, 1, 2, 3]], ids=["one scan each", "ragged"])
def test_batched_engines_agree_with_the_loop_for(name, rows):
    network, dimensions = LAYERS[name]
    network = network.double()
    patients = records((5,) * dimensions, rows)
    expected = gradients(EngineName.LOOP, network, patients, spread)
    for engine in BATCHED:
        assert_equal(gradients(engine, network, patients, spread), expected)


@pytest.mark.parametrize("name", ["small_cnn", "residual", "unet", "level_head", "autoencoder"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_batched_engines_agree_with_the_loop_for_the_networks_of_the_project(name, dimensions):
    network = build_network(name, dimensions=dimensions, classes=3, width=4, zero_head=False).double()
    patients = records((8,) * dimensions, [2, 1, 3], channels=1)
    expected = gradients(EngineName.LOOP, network, patients, spread)
    for engine in BATCHED:
        assert_equal(gradients(engine, network, patients, spread), expected)


def test_every_engine_agrees_for_a_deeper_unet(one_way):
    network = build_network("unet", dimensions=2, classes=3, width=4, levels=4, zero_head=False).double()
    patients = records((8, 8), [2, 1, 3], channels=1)
    expected = gradients(EngineName.LOOP, network, patients, spread)
    for engine in BATCHED:
        assert_equal(gradients(engine, network, patients, spread), expected)
    assert_equal(one_at_a_time(network, patients, spread), expected)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rows", [[1, 1, 1, 1], [3, 1, 2, 3]], ids=["one scan each", "ragged"])
def test_layer_by_layer_agrees_with_the_loop_for(name, rows, one_way):
    network, dimensions = LAYERS[name]
    network = network.double()
    patients = records((5,) * dimensions, rows)
    expected = gradients(EngineName.LOOP, network, patients, spread)
    assert_equal(one_at_a_time(network, patients, spread), expected)


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
@pytest.mark.parametrize("trainable", ["all", "head"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_layer_by_layer_agrees_with_the_loop_for_the_networks_of_the_project(name, trainable, dimensions, one_way):
    network = build_network(name, dimensions=dimensions, classes=3, width=4, zero_head=False).double()
    patients = records((8,) * dimensions, [2, 1, 3], channels=1)
    expected = gradients(EngineName.LOOP, network, patients, spread, trainable=trainable)
    assert_equal(one_at_a_time(network, patients, spread, trainable=trainable), expected)


def test_a_phase_that_trains_the_head_only_gets_the_head_s_part_and_nothing_else():
    network = build_network("small_cnn", dimensions=2, classes=3, width=4, zero_head=False).double()
    patients = records((8, 8), [2, 1, 3], channels=1)
    whole = layout(network)
    for engine in ENGINES:
        head = gradients(engine, network, patients, spread, trainable="head")
        assert head.shape == (layout(network, "head").num_parameters,)
        assert_equal(head, gradients(EngineName.LOOP, network, patients, spread, trainable="head"))
    assert len(head) < whole.num_parameters
    assert not network.encoder.levels[0][0].weight.requires_grad


@pytest.mark.parametrize("per_stack", [1, 2, 5, 8])
def test_the_size_of_a_stack_changes_nothing(per_stack):
    network = build_network("residual", dimensions=2, classes=2, width=4, zero_head=False).double()
    patients = records((6, 6), [1, 2, 3, 1, 2], channels=1)
    expected = gradients(EngineName.LOOP, network, patients, spread, per_stack=3)
    for engine in ENGINES:
        assert_equal(gradients(engine, network, patients, spread, per_stack=per_stack), expected)


def test_a_patient_s_loss_is_the_weighted_sum_over_own_rows():
    network = nn.Linear(3, 2).double()
    patient = PatientRows(
        torch.randn(4, 3, dtype=torch.float64), (torch.tensor([0, 1, 1, 0]),), torch.tensor([0.5, 0.0, 0.25, 0.25])
    )
    losses = functional.cross_entropy(network(patient.inputs), patient.targets[0], reduction="none")
    expected = torch.autograd.grad((losses * patient.weights).sum(), list(network.parameters()))
    for engine in ENGINES:
        gradient = PrivateGradient(network, layout(network), SpeedSettings(engine))
        stacks = stack_patients([patient], patients_per_stack=2, rows_per_patient=6)
        total = fine_sum(layout(network).num_parameters)
        found = gradient.clipped_sum(stacks, cross_entropy, clipping_norm=100.0, total=total).vector
        assert_equal(found, torch.cat([part.flatten() for part in expected]))


def test_segmentation_targets_and_teacher_masks_travel_with_their_rows():
    def masked(outputs: Tensor, classes: Tensor, confident: Tensor) -> Tensor:
        losses = functional.cross_entropy(outputs, classes, reduction="none") * confident
        return losses.flatten(1).mean(1)

    network = build_network("unet", dimensions=2, classes=3, width=4, zero_head=False).double()
    patients = [
        PatientRows(
            plain.inputs,
            (torch.randint(0, 3, (len(plain.weights), 8, 8)), torch.rand(len(plain.weights), 8, 8).double()),
            plain.weights,
        )
        for plain in records((8, 8), [2, 1, 3], channels=1)
    ]
    expected = gradients(EngineName.LOOP, network, patients, masked)
    for engine in BATCHED:
        assert_equal(gradients(engine, network, patients, masked), expected)


def test_layers_that_book_keeping_cannot_do_are_named_and_left_to_others():
    network = Bare().double()
    problem = Problem(network, layout(network), spread)
    assert unsupported_layers(problem) == {"Bare"}
    patients = records((5, 5), [2, 3])
    (stack,) = stack_patients(patients, patients_per_stack=2, rows_per_patient=3)
    way = choose(ENGINES, problem, stack, reference=LOOP)
    assert way.engine is not ENGINES[EngineName.BOOK_KEEPING]
    assert not way.autocast
    assert_equal(
        summed(EngineName.AUTO, network, patients, spread), gradients(EngineName.LOOP, network, patients, spread)
    )


def test_an_engine_that_disagrees_with_the_reference_is_never_chosen():
    network = nn.Linear(3, 2).double()
    problem = Problem(network, layout(network), spread)
    (stack,) = stack_patients(records((), [2, 2], channels=3), patients_per_stack=2, rows_per_patient=2)

    def wrong(problem, stack):
        return torch.ones(2, 8).double()

    def drifting(problem, stack):
        return LOOP(problem, stack) + 1e-3 * stack.inputs[0].sum()

    assert choose({"wrong": wrong, "drifting": drifting, "loop": LOOP}, problem, stack, reference=LOOP).engine is LOOP
    with pytest.raises(NetworkUnsuitableError, match="apart"):
        choose({"wrong": wrong, "drifting": drifting}, problem, stack, reference=LOOP)


def test_a_network_that_mixes_patients_is_refused_before_it_sees_one():
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, rows: Tensor) -> Tensor:
            return self.linear(rows) * (rows - rows.mean(0)).abs().sum()  # the mean runs over the batch

    patients = records((), [2, 2], channels=3)
    for engine in BATCHED[1:]:  # the loop and vmap show a layer one patient at a time: nothing can mix
        with pytest.raises(NetworkUnsuitableError, match="apart"):
            summed(engine, Centred().double(), patients, spread)


def test_the_choice_of_an_engine_sees_no_patient_and_leaves_the_network_alone():
    network = build_network("small_cnn", dimensions=2, classes=3, width=4)
    before = [parameter.clone() for parameter in network.parameters()]
    inputs = torch.full((1, 2, 1, 8, 8), float("nan"))
    (stack,) = stack_patients([PatientRows(inputs[0], (), torch.ones(2))], patients_per_stack=1, rows_per_patient=2)
    assert bool(torch.isfinite(public_example(stack).inputs).all())
    train_only(network, layout(network))
    choose(ENGINES, Problem(network, layout(network), spread), stack, reference=LOOP)
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


CONVOLUTIONS = {
    "1-D": nn.Conv1d(2, 4, 3, padding=2, dilation=2),
    "2-D": nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
    "3-D": nn.Conv3d(4, 4, (3, 2, 1), stride=(1, 2, 1), padding=(1, 0, 0), dilation=(2, 1, 1), groups=2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_ways_to_a_convolution_s_gradient_agree(name):
    layer = CONVOLUTIONS[name].double()
    x = torch.randn(6, layer.in_channels, *[7] * len(layer.kernel_size), dtype=torch.float64)
    outer = torch.randn_like(layer(x))
    one_by_one = torch.cat(_one_by_one(layer, x, outer, 2, padding=list(layer.padding), transposed=False))
    for way in (_unfolded, _grouped):
        found = torch.cat(way(layer, x, outer, 2, padding=list(layer.padding)))
        assert torch.allclose(found, one_by_one, rtol=1e-10, atol=1e-12)


def test_unfolding_agrees_with_torch_in_two_dimensions():
    images = torch.randn(2, 3, 7, 6)
    volumes = images.unsqueeze(2)
    expected = functional.unfold(images, (3, 2), dilation=(2, 1), padding=(1, 1), stride=(2, 1))
    found = unfold(volumes, (1, 3, 2), stride=(1, 2, 1), padding=[0, 1, 1], dilation=(1, 2, 1))
    assert torch.equal(found, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["small_cnn", "residual"])
def test_with_one_scan_a_patient_the_clipped_sum_is_that_of_opacus(name):
    grad_sample = pytest.importorskip("opacus.grad_sample")
    network = build_network(name, dimensions=2, classes=3, width=4, zero_head=False).double()
    images, classes = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.randint(0, 3, (6,))
    hooked = grad_sample.GradSampleModule(network, loss_reduction="sum")
    functional.cross_entropy(hooked(images), classes, reduction="sum").backward()
    samples = torch.cat([parameter.grad_sample.flatten(1) for parameter in network.parameters()], dim=1)
    norms = samples.norm(dim=1)
    clipping_norm = float(norms.median())
    factors = (clipping_norm * (1 - 1e-4) / norms).clamp(max=1)
    hooked.remove_hooks()
    patients = [
        PatientRows(image[None], (label[None],), torch.ones(1).double())
        for image, label in zip(images, classes, strict=True)
    ]
    for engine in ENGINES:
        gradient = PrivateGradient(network, layout(network), SpeedSettings(engine))
        stacks = stack_patients(patients, patients_per_stack=4, rows_per_patient=1)
        total = fine_sum(layout(network).num_parameters)
        found = gradient.clipped_sum(stacks, cross_entropy, clipping_norm=clipping_norm, total=total).vector
        assert_equal(found, factors @ samples)
