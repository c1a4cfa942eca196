"""The guarantee of the private step: whatever a patient's scans hold, the sum moves by at most the clipping norm."""

import functools
import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from client.private_gradients.choice import choose
from client.private_gradients.clipping import LatticeSum, patient_norms
from client.private_gradients.engine import ENGINES, PrivateGradient
from client.private_gradients.lattice import finest_step
from client.private_gradients.problem import Problem
from client.private_gradients.settings import EngineName, SpeedSettings
from client.private_gradients.stacks import PatientRows, PatientStack, stack_patients
from common.networks.parameters import layout
from common.networks.registry import build_network

C = 0.5  # below any ordinary gradient here: every patient is clipped
SIZES = {"small_cnn": (2, (8, 8)), "unet": (2, (8, 8)), "residual": (3, (5, 5, 5))}
CHUNK = 3
ROWS = 3


def loss(outputs: Tensor, classes: Tensor) -> Tensor:
    classes = classes.view(-1, *[1] * (outputs.dim() - 2)).expand(outputs.shape[0], *outputs.shape[2:])
    losses = 30 * functional.cross_entropy(outputs, classes, reduction="none")
    return losses.reshape(len(outputs), -1).mean(1)


def patient(size: tuple[int, ...], rows: int, seed: int, fill: float | None = None, scale: float = 1.0) -> PatientRows:
    generator = torch.Generator().manual_seed(seed)
    inputs = scale * torch.randn(rows, 1, *size, generator=generator)
    if fill is not None:
        inputs[0, 0, 0, 0] = fill  # one voxel (or one row) of one scan
    return PatientRows(inputs, (torch.randint(0, 2, (rows,), generator=generator),), torch.full((rows,), 1 / rows))


@functools.cache
def made(name: str, engine: EngineName, *, autocast: bool = False) -> PrivateGradient:
    dimensions, _ = SIZES[name]
    network = build_network(name, dimensions=dimensions, classes=2, width=4, zero_head=False)
    return PrivateGradient(network, layout(network), SpeedSettings(engine, autocast))


def total(gradient: PrivateGradient, patients: list[PatientRows], clipping_norm: float = C) -> Tensor:
    stacks = stack_patients(patients, patients_per_stack=CHUNK, rows_per_patient=ROWS)
    return gradient.clipped_sum(stacks, loss, clipping_norm=clipping_norm).vector


FINITE = {
    "an ordinary patient": {"rows": 2},
    "one scan": {"rows": 1},
    "as many scans as are allowed": {"rows": ROWS},
    "a black scan": {"rows": 2, "scale": 0.0},
    "enormous values": {"rows": 2, "scale": 1e12},
    "tiny values": {"rows": 2, "scale": 1e-20},
    "one bright voxel": {"rows": 2, "fill": 1e6},
}
POISONED = {"NaN": float("nan"), "infinity": float("inf"), "minus infinity": -float("inf"), "overflow": 3e38}
PRODUCT = list(itertools.product(SIZES, ENGINES, (False, True)))


@pytest.mark.parametrize(("name", "engine", "autocast"), PRODUCT)
def test_no_patient_contributes_more_than_the_clipping_norm(name, engine, autocast):
    gradient = made(name, engine, autocast=autocast)
    for case, options in FINITE.items():
        alone = total(gradient, [patient(SIZES[name][1], seed=1, **options)])
        assert bool(torch.isfinite(alone).all()), case
        assert float(alone.norm()) <= C, case
        if case == "an ordinary patient":
            assert float(alone.norm()) > 0.999 * C, "the clip must not cost signal"


@pytest.mark.parametrize(("name", "engine", "autocast"), PRODUCT)
def test_one_patient_more_moves_the_sum_by_at_most_the_clipping_norm(name, engine, autocast):
    gradient = made(name, engine, autocast=autocast)
    size = SIZES[name][1]
    others = [patient(size, rows=1 + seed % 3, seed=seed) for seed in range(4)]
    without = total(gradient, others)
    for case, options in FINITE.items():
        for place in (0, 4):  # moving the others to other stacks must not matter
            with_patient = total(gradient, [*others[:place], patient(size, seed=9, **options), *others[place:]])
            assert float((with_patient - without).norm()) <= C, case


@pytest.mark.parametrize(("name", "engine", "autocast"), PRODUCT)
def test_a_patient_s_gradient_is_the_same_to_the_last_bit_beside_other_neighbours(name, engine, autocast):
    dimensions, size = SIZES[name]
    network = build_network(name, dimensions=dimensions, classes=2, width=4, zero_head=False)
    one = patient(size, rows=2, seed=9)
    others = [patient(size, rows=1 + seed, seed=seed, scale=100.0) for seed in range(2)]

    def stacked(*patients: PatientRows) -> PatientStack:
        return next(stack_patients(patients, patients_per_stack=CHUNK, rows_per_patient=ROWS)).silenced()

    problem = Problem(network, layout(network), loss, autocast)
    way = choose({engine: ENGINES[engine]}, problem, stacked(one), reference=ENGINES[EngineName.LOOP])
    alone = torch.cat(list(way.gradients(problem, stacked(one))))[0]
    for place, patients in enumerate(([one, *others], [others[1], one, others[0]], [*others, one])):
        assert torch.equal(torch.cat(list(way.gradients(problem, stacked(*patients))))[place], alone)


@pytest.mark.parametrize(("dimensions", "takes_bfloat16"), [(2, True), (3, False)])
def test_bfloat16_is_never_tried_where_it_is_known_to_be_wrong_now_and_then(dimensions, takes_bfloat16):
    network = build_network("residual", dimensions=dimensions, classes=2, width=4, zero_head=False)
    size = (8,) * dimensions
    stack = next(stack_patients([patient(size, rows=2, seed=9)], patients_per_stack=CHUNK, rows_per_patient=ROWS))
    problem = Problem(network, layout(network), loss, autocast=True)
    engines = {EngineName.LOOP: ENGINES[EngineName.LOOP]}
    assert choose(engines, problem, stack, reference=ENGINES[EngineName.LOOP]).autocast is takes_bfloat16


@pytest.mark.parametrize(("name", "engine"), itertools.product(SIZES, ENGINES))
@pytest.mark.parametrize("poison", POISONED)
def test_a_poisoned_scan_silences_its_patient_and_touches_nobody_else(name, engine, poison):
    gradient = made(name, engine)
    size = SIZES[name][1]
    others = [patient(size, rows=1 + seed % 3, seed=seed) for seed in range(4)]
    bad = patient(size, rows=3, seed=9, fill=POISONED[poison])
    if poison == "overflow":
        bad = PatientRows(bad.inputs * 1e38, bad.targets, bad.weights)
    without = total(gradient, others)
    poisoned = total(gradient, [*others[:2], bad, *others[2:]])
    assert bool(torch.isfinite(poisoned).all())
    assert float((poisoned - without).norm()) <= 1e-4 * C
    assert float(total(gradient, [bad]).norm()) == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_sample_and_a_stack_of_padding_give_exactly_zero(engine):
    gradient = made("small_cnn", engine)
    nobody = PatientStack(
        torch.zeros(CHUNK, ROWS, 1, 8, 8), (torch.zeros(CHUNK, ROWS, dtype=torch.int64),), torch.zeros(CHUNK, ROWS)
    )
    for stacks in ([], [nobody]):
        found = gradient.clipped_sum(stacks, loss, clipping_norm=C)
        assert not bool(found.values.any())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_row_of_weight_zero_has_no_say_even_if_it_holds_nan(engine):
    gradient = made("small_cnn", engine)
    good = patient((8, 8), rows=3, seed=1)
    good.weights[1] = 0
    spoiled = PatientRows(good.inputs.clone(), good.targets, good.weights)
    spoiled.inputs[1] = float("nan")
    assert torch.allclose(total(gradient, [spoiled]), total(gradient, [good]), rtol=1e-5, atol=1e-7)
    assert float(total(gradient, [spoiled]).norm()) > 0


def test_engines_clip_alike_under_bfloat16():
    size = SIZES["unet"][1]
    patients = [patient(size, rows=2, seed=seed) for seed in range(3)]
    for one in patients:
        norms = [float(total(made("unet", engine, autocast=True), [one]).norm()) for engine in ENGINES]
        assert all(0.999 * C < norm <= C for norm in norms)


def test_norms_of_long_vectors_are_right_where_a_float32_sum_loses_the_small_squares():
    long = torch.full((2, 6_000_000), 1e-3)
    long[:, 0] = 30.0
    exact = torch.linalg.vector_norm(long[0].double())
    assert patient_norms(long).tolist() == pytest.approx([float(exact)] * 2, rel=1e-6)


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 20_000])
def test_norms_do_not_depend_on_where_blocks_end(length):
    rows = torch.randn(3, length)
    assert patient_norms(rows).tolist() == pytest.approx(rows.double().norm(dim=1).tolist(), rel=1e-6)


def test_a_thousand_patients_add_up_without_losing_the_bound():
    clipped = LatticeSum(100, step=2.0**-40, device=torch.device("cpu"))
    gradients = torch.randn(1000, 100, generator=torch.Generator().manual_seed(0)) * 50
    clipped.add(gradients.clone(), clipping_norm=1.0)
    exact = (gradients.double() / gradients.double().norm(dim=1, keepdim=True) * (1 - 1e-4)).sum(0)
    before = clipped.vector
    assert float((before - exact).norm()) < 1e-5
    clipped.add(gradients[:1], clipping_norm=1.0)
    assert float((clipped.vector - before).norm()) <= 1.0


def test_what_a_patient_adds_is_the_same_integers_whoever_came_before():
    """No rounding by the others: the difference of two sums is, bit for bit, the sum of the one alone."""
    gradients = torch.randn(50, 7001, generator=torch.Generator().manual_seed(1)) * 3

    def values(rows):
        clipped = LatticeSum(7001, step=finest_step(0.5, 7001), device=torch.device("cpu"))
        for row in rows:
            clipped.add(row[None].clone(), clipping_norm=0.5)
        return clipped.values.long()

    alone = values(gradients[7:8])
    assert bool(alone.any())
    assert torch.equal(values(gradients) - values(torch.cat([gradients[:7], gradients[8:]])), alone)


def test_a_sum_leaves_32_bits_before_it_could_overflow():
    row = torch.zeros(1, 3)
    row[0, 0] = 1.0
    clipped = LatticeSum(3, step=2.0**-28, device=torch.device("cpu"))
    exact, kinds = 0, []
    for _ in range(20):
        clipped.add(row.clone(), clipping_norm=1.0)
        exact += int((1 - 1e-4) * 2**28)
        kinds.append(clipped.values.dtype)
        assert abs(int(clipped.values[0]) - exact) <= 32 * len(kinds), "float32 scales by 2^-24 exactly at best"
    assert (kinds[0], kinds[-1]) == (torch.int32, torch.int64)
    assert exact > 2**31


def test_a_permission_to_round_matrix_products_does_not_reach_the_sum():
    gradients = torch.randn(20, 5000, generator=torch.Generator().manual_seed(0))
    sums = []
    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        clipped = LatticeSum(5000, step=2.0**-30, device=torch.device("cpu"))
        clipped.add(gradients.clone(), clipping_norm=1.0)
        sums.append(clipped.values)
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(*sums)


@pytest.mark.parametrize("clipping_norm", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clipping_norm_without_meaning_is_refused(clipping_norm):
    with pytest.raises(ValueError, match="clipping norm"):
        total(made("small_cnn", EngineName.LOOP), [patient((8, 8), rows=1, seed=0)], clipping_norm)


@pytest.mark.parametrize("rows", [0, ROWS + 1, 1000])
def test_more_rows_than_were_agreed_are_refused_before_any_gradient(rows):
    with pytest.raises(ValueError, match="rows"):
        total(made("small_cnn", EngineName.LOOP), [patient((8, 8), rows=2, seed=0), _rows(rows)])


def _rows(count: int) -> PatientRows:
    return PatientRows(torch.zeros(count, 1, 8, 8), (torch.zeros(count, dtype=torch.int64),), torch.zeros(count))


def test_a_criterion_that_mixes_rows_is_refused():
    gradient = made("small_cnn", EngineName.LOOP)
    stacks = stack_patients([patient((8, 8), rows=3, seed=0)], patients_per_stack=1, rows_per_patient=3)
    with pytest.raises(ValueError, match="criterion"):
        gradient.clipped_sum(stacks, lambda outputs, classes: loss(outputs, classes).mean(), clipping_norm=C)


def test_a_stack_whose_tensors_disagree_is_refused():
    with pytest.raises(ValueError, match="stack"):
        PatientStack(torch.zeros(2, 3, 1, 4, 4), (torch.zeros(2, 2),), torch.zeros(2, 3))
