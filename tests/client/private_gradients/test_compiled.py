"""torch.compile is a setting of speed: the same clip, the same gradients, and without it if it does not work."""

import functools
import itertools
import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from client.private_gradients import compiled
from client.private_gradients.choice import choose
from client.private_gradients.clipping import LatticeSum, patient_norms
from client.private_gradients.compiled import COMPILED, CompiledGradients
from client.private_gradients.engine import ENGINES, PrivateGradient
from client.private_gradients.lattice import finest_step
from client.private_gradients.loop import loop_gradients
from client.private_gradients.problem import Problem
from client.private_gradients.settings import EngineName, SpeedSettings
from client.private_gradients.stacks import PatientRows, PatientStack, stack_patients
from common.networks.parameters import layout, train_only
from common.networks.registry import build_network

C = 0.5
LINEAR = "a linear layer"  # quick to compile: for what does not depend on the network
SIZES = {LINEAR: (2, 4), "small_cnn": (2, 8), "residual": (2, 8), "unet": (2, 8), "small_cnn in 3-D": (3, 6)}


def loss(outputs: Tensor, classes: Tensor) -> Tensor:
    classes = classes.view(-1, *[1] * (outputs.dim() - 2)).expand(outputs.shape[0], *outputs.shape[2:])
    losses = functional.cross_entropy(outputs, classes, reduction="none")
    return losses.reshape(len(outputs), -1).mean(1)


def made(name: str, autocast: bool = False) -> tuple[Problem, PatientStack]:
    """A network, and four patients of one to three scans: black, ordinary, bright, poisoned."""
    dimensions, size = SIZES[name]
    torch.manual_seed(0)
    network: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    if name != LINEAR:
        network = build_network(name.split(maxsplit=1)[0], dimensions=dimensions, classes=2, width=4, zero_head=False)
    train_only(network, layout(network))
    generator = torch.Generator().manual_seed(0)
    patients = []
    for scale, rows in ((0.0, 1), (1.0, 2), (3.0, 3), (float("nan"), 1)):
        inputs = scale * torch.randn(rows, 1, *[size] * dimensions, generator=generator)
        patients.append(PatientRows(inputs, (torch.arange(rows) % 2,), torch.full((rows,), 1 / rows)))
    (stack,) = stack_patients(patients, patients_per_stack=4, rows_per_patient=3)
    return Problem(network, layout(network), loss, autocast), stack.silenced()


def clipped(problem: Problem, gradients: Tensor) -> Tensor:
    parameters = problem.order.num_parameters
    total = LatticeSum(parameters, step=finest_step(C, parameters), device=torch.device("cpu"))
    total.add(gradients.clone(), clipping_norm=C)
    return total.vector


def assert_same_clip(problem: Problem, found: Tensor, expected: Tensor, *, tolerance: float) -> None:
    """The norms that decide the clip agree, and so does the clipped sum; nobody exceeds the clipping norm."""
    assert not bool(torch.isfinite(found[3]).all()), "the poisoned patient must stay recognisable"
    norms, expected_norms = patient_norms(found[:3]), patient_norms(expected[:3])
    assert bool((expected_norms[1:] > 1e-3).all())
    assert bool(((norms - expected_norms).abs() <= tolerance * expected_norms).all())
    total, expected_total = clipped(problem, found), clipped(problem, expected)
    assert float((total - expected_total).norm()) <= tolerance * C
    for one in found:
        assert float(clipped(problem, one[None]).norm()) <= C


@functools.cache
def compiled_once(autocast: bool) -> tuple[Problem, PatientStack, Tensor]:
    problem, stack = made("small_cnn", autocast)
    return problem, stack, CompiledGradients(problem, backend="eager")(problem, stack)


@pytest.mark.parametrize(
    ("engine", "autocast"), itertools.product([EngineName.VMAP, EngineName.BOOK_KEEPING], (False, True))
)
def test_a_compiled_step_clips_like_every_engine(engine, autocast):
    problem, stack, found = compiled_once(autocast)
    tolerance = 0.1 if autocast else 1e-3
    assert_same_clip(problem, found, ENGINES[engine](problem, stack), tolerance=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize(("name", "autocast"), itertools.product(SIZES, (False, True)))
def test_a_compiled_step_clips_like_the_vectorised_one_for(name, autocast, backend):
    problem, stack = made(name, autocast)
    if backend == "inductor" and (name != "small_cnn" or autocast):
        pytest.skip("compiling kernels takes minutes of processor time; one network stands for all")
    found = CompiledGradients(problem, backend=backend)(problem, stack)
    expected = ENGINES[EngineName.VMAP](problem, stack)
    assert_same_clip(problem, found, expected, tolerance=0.1 if autocast else 1e-3)


def test_a_compiled_engine_must_pass_the_same_trial_and_serves_other_weights_without_compiling_again():
    problem, stack = made(LINEAR)
    compilations = []

    def counting(graph, inputs):
        compilations.append(graph)
        return graph.forward

    engine = CompiledGradients(problem, backend=counting)
    way = choose({COMPILED: engine}, problem, stack, reference=loop_gradients)
    assert way.engine is engine
    assert way.patients == stack.patients, "smaller parts would compile again"
    for _ in range(2):
        with torch.no_grad():
            for parameter in problem.network.parameters():
                parameter.mul_(1.1)
        assert_same_clip(problem, engine(problem, stack), ENGINES[EngineName.VMAP](problem, stack), tolerance=1e-3)
    assert len(compilations) == 1


def summed(problem: Problem, stack: PatientStack, settings: SpeedSettings) -> tuple[Tensor, list[str]]:
    gradient = PrivateGradient(problem.network, problem.order, settings)
    return gradient.clipped_sum([stack], loss, clipping_norm=C).vector, gradient.engine_names


def test_where_compiling_fails_one_sentence_says_so_and_the_step_is_the_same(monkeypatch, caplog):
    def broken(graph, inputs):
        raise OSError("no compiler in /home/someone")

    problem, stack = made(LINEAR)
    monkeypatch.setattr(compiled, "BACKEND", broken)
    plain, _ = summed(problem, stack, SpeedSettings(EngineName.LOOP))
    caplog.set_level(logging.WARNING, "fedward.site")
    for _ in range(2):
        found, names = summed(problem, stack, SpeedSettings(EngineName.LOOP, compile=True))
        assert names == ["loop"]
        assert torch.allclose(found, plain, rtol=1e-6, atol=1e-7)
    said = [record.getMessage() for record in caplog.records if record.name == "fedward.site"]
    assert len(said) == 2, "one for each training that asked for it"
    assert "torch.compile is not used: it failed" in said[0]
    assert "/home" not in said[0]


def test_a_compiler_that_changes_gradients_is_not_believed(monkeypatch, caplog):
    def halving(graph, inputs):
        return lambda *values: [value * 0.5 for value in graph.forward(*values)]

    problem, stack = made(LINEAR)
    monkeypatch.setattr(compiled, "BACKEND", halving)
    found, names = summed(problem, stack, SpeedSettings(EngineName.LOOP, compile=True))
    plain, _ = summed(problem, stack, SpeedSettings(EngineName.LOOP))
    assert names == ["loop"]
    assert torch.allclose(found, plain, rtol=1e-6, atol=1e-7)
    assert "more exact" in caplog.text


def test_a_compiled_step_that_fails_later_goes_on_with_the_reference(caplog):
    problem, stack = made(LINEAR)
    calls = itertools.count()

    def short_lived(graph, inputs):
        def run(*values):
            if next(calls):
                raise OSError("gone")
            return graph.forward(*values)

        return run

    engine = CompiledGradients(problem, backend=short_lived)
    engine(problem, stack)
    engine.trusted = True
    for _ in range(2):
        assert torch.equal(engine(problem, stack).nan_to_num(), loop_gradients(problem, stack).nan_to_num())
    assert "the reference goes on" in caplog.text


def test_compiling_is_off_unless_the_site_asks_for_it():
    assert SpeedSettings().compile is False
