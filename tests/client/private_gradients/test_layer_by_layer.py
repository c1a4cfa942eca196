"""One patient at a time, layer by layer: the bound holds, a processor that drifts is refused, memory stays small."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from client.errors import TrainerFailedError
from client.private_gradients import engine as engines
from client.private_gradients import forward_in_parts, layer_by_layer, loop
from client.private_gradients.clipping import LatticeSum, Piece
from client.private_gradients.engine import PrivateGradient
from client.private_gradients.lattice import finest_step
from client.private_gradients.problem import Problem
from client.private_gradients.settings import EngineName, SpeedSettings
from client.private_gradients.stacks import PatientRows, stack_patients
from common.networks.parameters import layout, train_only
from common.networks.registry import build_network

C = 0.5
CPU = torch.device("cpu")
EXTREME = [0.0, 1e-44, 1e-30, 1e-20, 1e-3, 1.0, 1e6, 1e19, 1e30, 3e38, float("inf"), -float("inf"), float("nan")]


def loss(outputs: Tensor) -> Tensor:
    return 30 * (outputs.flatten(1).sin() + 0.3 * outputs.flatten(1) ** 2).mean(1)


def patient(seed: int, *, rows: int = 2, size: int = 8, scale: float = 1.0, fill: float | None = None) -> PatientRows:
    inputs = scale * torch.randn(rows, 1, size, size, generator=torch.Generator().manual_seed(seed))
    if fill is not None:
        inputs[0, 0, 0, 0] = fill
    return PatientRows(inputs, (), torch.full((rows,), 1 / rows))


def gradient(engine: EngineName = EngineName.AUTO) -> PrivateGradient:
    network = build_network("residual", dimensions=2, classes=2, width=8, zero_head=False)
    return PrivateGradient(network, layout(network), SpeedSettings(engine))


def values(one: PrivateGradient, patients: list[PatientRows]) -> Tensor:
    stacks = stack_patients(patients, patients_per_stack=1, rows_per_patient=3)
    return one.clipped_sum(stacks, loss, clipping_norm=C).values.long()


@pytest.fixture(scope="module", autouse=True)
def small_gradients_too():
    """The networks of these tests are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "CPU_WHOLE_GRADIENT_BYTES", 0)
        yield


@pytest.fixture
def small_parts(monkeypatch):
    """Many parts, all computed again."""
    monkeypatch.setattr(forward_in_parts, "PART_BYTES", 4096)
    monkeypatch.setattr(layer_by_layer, "_computed_again", lambda layer, x, g: layer_by_layer._divisible(layer))


def pieces_of(row: Tensor, cuts: list[int]) -> list[Piece]:
    """The row in pieces of two parts each; every walk gets values of its own, as when they are computed again."""
    pieces, start = [], 0
    for size in [*cuts, len(row) - sum(cuts)]:
        piece = row[start : start + size]
        pieces.append(Piece(start, lambda piece=piece: iter([part.clone() for part in piece.chunk(2)])))
        start += size
    return pieces


# --- the sum of pieces ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(
    exponents=st.lists(st.sampled_from(EXTREME), min_size=1, max_size=5),
    length=st.integers(5, 9000),
    seed=st.integers(0, 99),
)
def test_whatever_its_magnitudes_a_gradient_in_pieces_adds_at_most_the_clipping_norm(exponents, length, seed):
    row = torch.randn(length, generator=torch.Generator().manual_seed(seed))
    for place, magnitude in enumerate(exponents):
        row[place :: len(exponents)] *= magnitude
    step = finest_step(C, length)
    total, whole = (LatticeSum(length, step=step, device=CPU) for _ in range(2))
    pieces = pieces_of(row, [1, length // 3])
    total.add_pieces(pieces, clipping_norm=C)
    whole.add(row[None].clone(), clipping_norm=C)
    assert float(total.vector.norm()) <= C + step * length**0.5 / 2
    if bool((row.abs() < 1e17).all()):  # beyond, whether squares overflow depends on where blocks end
        assert float((total.vector - whole.vector).norm()) <= 1e-5 * C
    assert pieces == [], "what was used is let go"


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_a_piece_that_is_not_finite_silences_the_whole_patient_and_nobody_else(poison):
    total = LatticeSum(100, step=2.0**-20, device=CPU)
    total.add_pieces(pieces_of(torch.ones(100), [40]), clipping_norm=C)
    before = total.values.clone()
    row = torch.ones(100)
    row[77] = poison
    pieces = pieces_of(row, [40])
    total.add_pieces(pieces, clipping_norm=C)
    assert torch.equal(total.values, before)
    assert pieces == []


def test_places_without_a_piece_and_a_gradient_of_zero_add_nothing():
    total = LatticeSum(10, step=2.0**-20, device=CPU)
    total.add_pieces([], clipping_norm=C)
    total.add_pieces(pieces_of(torch.zeros(10), [3]), clipping_norm=C)
    assert not bool(total.values.any())
    total.add_pieces([Piece(4, lambda: iter([torch.full((2,), 1e-2)]))], clipping_norm=C)
    assert total.vector.nonzero().flatten().tolist() == [4, 5]


def test_a_gradient_below_the_clipping_norm_stays_itself():
    row = torch.full((100,), 2.0**-10)
    total = LatticeSum(100, step=2.0**-20, device=CPU)
    total.add_pieces(pieces_of(row, [40]), clipping_norm=C)
    assert torch.equal(total.vector, row.double())


def test_pieces_leave_32_bits_before_they_could_overflow():
    total = LatticeSum(3, step=2.0**-28, device=CPU)
    for _ in range(20):
        total.add_pieces([Piece(0, lambda: iter([torch.tensor([1.0, 0.0, 0.0])]))], clipping_norm=1.0)
    assert total.values.dtype == torch.int64
    assert int(total.values[0]) > 2**31


@pytest.mark.parametrize("change", [1 + 1e-6, 2.0, 0.0, float("nan")])
def test_a_part_that_comes_out_different_the_second_time_is_refused_before_it_is_added(change):
    walks = []

    def parts():
        walks.append(1)
        yield torch.ones(50) * (change if len(walks) > 1 else 1)

    total = LatticeSum(100, step=2.0**-20, device=CPU)
    with pytest.raises(TrainerFailedError, match="computed again"):
        total.add_pieces([Piece(0, parts)], clipping_norm=C)
    assert not bool(total.values.any())


@pytest.mark.parametrize("clipping_norm", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clipping_norm_without_meaning_is_refused(clipping_norm):
    with pytest.raises(ValueError, match="clipping norm"):
        LatticeSum(3, step=1.0, device=CPU).add_pieces([], clipping_norm=clipping_norm)


# --- patients ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 99), rows=st.integers(1, 3), scale=st.sampled_from(EXTREME), fill=st.sampled_from(EXTREME))
def test_no_patient_contributes_more_than_the_clipping_norm(seed, rows, scale, fill):
    one = gradient()
    stacks = stack_patients(
        [patient(seed, rows=rows, scale=scale, fill=fill)], patients_per_stack=1, rows_per_patient=3
    )
    alone = one.clipped_sum(stacks, loss, clipping_norm=C)
    assert float(alone.vector.norm()) <= C
    assert one.engine_names == ["layer_by_layer"]


def test_a_patient_adds_the_same_integers_whoever_else_was_sampled(small_parts):
    one = gradient()
    patients = [patient(seed, rows=1 + seed % 3, scale=10.0**seed) for seed in range(5)]
    alone = values(one, patients[2:3])
    assert bool(alone.any())
    assert torch.equal(values(one, patients) - values(one, patients[:2] + patients[3:]), alone)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 3e38])
def test_a_poisoned_scan_silences_its_patient_and_touches_nobody_else(poison, small_parts):
    one = gradient()
    others = [patient(seed) for seed in range(3)]
    bad = patient(9, fill=poison)
    assert torch.equal(values(one, [others[0], bad, *others[1:]]), values(one, others))
    assert not bool(values(one, [bad]).any())


def test_in_float32_it_agrees_with_the_loop_to_rounding(small_parts):
    patients = [patient(seed) for seed in range(3)]
    found, expected = (values(gradient(engine), patients).double() for engine in (EngineName.AUTO, EngineName.LOOP))
    assert float((found - expected).norm()) <= 1e-5 * float(expected.norm())


def test_padding_and_an_empty_sample_add_exactly_zero():
    one = gradient()
    absent = PatientRows(torch.full((2, 1, 8, 8), float("nan")), (), torch.zeros(2))
    assert not bool(values(one, [absent]).any())
    assert not bool(values(one, []).any())


def test_a_layer_whose_gradient_drifts_is_refused(small_parts, monkeypatch):
    def drifting(layer, x, g):
        return lambda part: torch.rand(part.stop - part.start, layer.in_features)

    monkeypatch.setitem(layer_by_layer._PREPARE, nn.Linear, drifting)
    with pytest.raises(TrainerFailedError, match="loop"):
        values(gradient(), [patient(0)])


def test_the_network_is_as_before_even_if_the_loss_fails(small_parts):
    network = build_network("residual", dimensions=2, classes=2, width=8)

    def failing(outputs: Tensor) -> Tensor:
        raise ArithmeticError

    train_only(network, layout(network))
    with pytest.raises(ArithmeticError):
        layer_by_layer.gradient_pieces(Problem(network, layout(network), failing), patient(0))
    assert not any("forward" in vars(layer) or layer._forward_hooks for layer in network.modules())


class Scaled(nn.Module):
    """A parameter of its own, which only the loop can do one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.after = nn.Parameter(torch.ones(1)), nn.Conv2d(1, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.after(images * self.scale)


CHOICES = {
    "one patient at a time": (SpeedSettings(), 1, nn.Conv2d(1, 2, 3), True),
    "two at a time": (SpeedSettings(), 2, nn.Conv2d(1, 2, 3), False),
    "an engine of the site's choice": (SpeedSettings(EngineName.LOOP), 1, nn.Conv2d(1, 2, 3), False),
    "bfloat16": (SpeedSettings(autocast=True), 1, nn.Conv2d(1, 2, 3), False),
    "a layer it does not know": (SpeedSettings(), 1, Scaled(), False),
}


@pytest.mark.parametrize("case", CHOICES)
def test_layers_are_done_one_by_one_only_for(case):
    speed, at_once, network, expected = CHOICES[case]
    one = PrivateGradient(network, layout(network), speed)
    stacks = stack_patients([patient(0), patient(1)], patients_per_stack=at_once, rows_per_patient=2)
    one.clipped_sum(stacks, loss, clipping_norm=C)
    assert (one.engine_names == ["layer_by_layer"]) is expected


def test_the_loop_clears_what_the_loss_does_not_reach_in_memory_that_was_used_before(monkeypatch):
    network = nn.ModuleDict({"idle": nn.Linear(2, 2), "used": nn.Linear(2, 2)})
    network.forward = network["used"].forward
    monkeypatch.setattr(torch, "empty", lambda *sizes, **options: torch.full(sizes, float("nan"), **options))
    rows = PatientRows(torch.ones(1, 2), (), torch.ones(1))
    (stack,) = stack_patients([rows], patients_per_stack=1, rows_per_patient=1)
    found = loop.loop_gradients(Problem(network, layout(network), loss), stack)
    assert bool(torch.isfinite(found).all())
    assert not bool(found[0, :6].any())
    assert bool(found[0, 6:].any())


def test_small_gradients_are_left_to_the_loop_which_is_faster(monkeypatch):
    one = gradient()
    size = 4 * layout(build_network("residual", dimensions=2, classes=2, width=8)).num_parameters
    monkeypatch.setattr(engines, "CPU_WHOLE_GRADIENT_BYTES", size + 1)
    values(one, [patient(0)])
    assert one.engine_names == ["loop"]


# --- memory -----------------------------------------------------------------------------------------------------------

PROGRAM = """
import re, sys, torch
from client.private_gradients.clipping import LatticeSum
from client.private_gradients.engine import PrivateGradient
from client.private_gradients.settings import SpeedSettings
from client.private_gradients.stacks import PatientRows, stack_patients
from common.networks.registry import build_network
from common.networks.parameters import layout

network = build_network("residual", dimensions=2, classes=2, width=256, zero_head=False)
order = layout(network)
patients = [PatientRows(torch.randn(1, 1, 16, 16), (), torch.ones(1)) for _ in range(2)]
total = LatticeSum(order.num_parameters, step=2.0**-20, device=torch.device("cpu"))
stacks = stack_patients(patients, patients_per_stack=1, rows_per_patient=1)
gradient = PrivateGradient(network, order, SpeedSettings(sys.argv[1]))
gradient.clipped_sum(stacks, lambda outputs: outputs.square().sum(1), clipping_norm=1.0, total=total)
print(order.num_parameters, re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_the_peak_is_lower_than_the_loop_s_by_more_than_half_a_gradient():
    peak_mib = {}
    for engine in (EngineName.LOOP, EngineName.AUTO):
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, engine],
            env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "4194304", "PYTHONPATH": "."},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        )
        parameters, peak_kib = map(int, re.findall(r"\d+", ran.stdout))
        peak_mib[engine] = peak_kib / 1024
    assert peak_mib[EngineName.LOOP] - peak_mib[EngineName.AUTO] > 2 * parameters / 2**20, peak_mib
