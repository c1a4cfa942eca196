"""The noise has the promised width and shape, lies on the lattice, is drawn fresh, and no seed can steer it."""

import hashlib
import math
import multiprocessing
import os
import random

import numpy as np
import pytest
import torch
from scipy import stats

from client.learning.errors import NoiseError
from client.learning.noise import BLOCK, PrivacyRandomness

MANY = 400_000
STEP = 2.0**-30


class Replay:
    """Entropy that a test can repeat: SHA-256 of a counter."""

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0

    def __call__(self, size: int) -> bytes:
        self.count += 1
        return (hashlib.sha256(f"{self.name}{self.count}".encode()).digest() * 2)[:size]


def fixed(name: str = "fixed") -> PrivacyRandomness:
    """Randomness whose statistics a test may judge without ever failing by chance."""
    return PrivacyRandomness(Replay(name))


def test_the_standard_deviation_is_the_one_that_was_asked_for():
    noise = fixed().lattice_noise(MANY, noise_stddev=1.7, step=STEP) * STEP
    # chi-square on the variance: within 4 standard errors
    assert np.mean(noise**2) == pytest.approx(1.7**2, rel=4 * math.sqrt(2 / MANY))
    assert abs(np.mean(noise)) < 4 * 1.7 / math.sqrt(MANY)


def test_the_noise_is_normal_tails_included():
    noise = fixed().normals(MANY)
    assert stats.kstest(noise, "norm").pvalue > 0.01
    assert stats.normaltest(noise).pvalue > 0.01
    for bound in (2.0, 3.0, 4.0):
        expected = 2 * stats.norm.sf(bound) * MANY
        assert abs((np.abs(noise) > bound).sum() - expected) < 4 * math.sqrt(expected) + 1


def test_less_noise_than_asked_for_would_be_noticed():
    noise = 0.99 * fixed().normals(MANY)
    assert abs(np.mean(noise**2) - 1) > 4 * math.sqrt(2 / MANY)


def test_values_of_one_call_are_independent_of_each_other():
    noise = fixed().normals(MANY)
    for lag in (1, 2, 16, MANY // 2):  # MANY // 2: the cosine and the sine of one pair
        assert abs(np.corrcoef(noise[:-lag], noise[lag:])[0, 1]) < 4 / math.sqrt(MANY - lag)
        assert abs(np.corrcoef(noise[:-lag] ** 2, noise[lag:] ** 2)[0, 1]) < 4 / math.sqrt(MANY - lag)


def test_calls_blocks_and_objects_never_repeat_each_other():
    randomness = PrivacyRandomness()
    drawn = [randomness.normals(1000), randomness.normals(1000), PrivacyRandomness().normals(1000)]
    long = randomness.lattice_noise(BLOCK + 1000, noise_stddev=1e6, step=1.0)
    drawn += [long[:1000] / 1e6, long[BLOCK : BLOCK + 1000] / 1e6]
    for first in range(len(drawn)):
        for second in range(first):
            assert abs(np.corrcoef(drawn[first], drawn[second])[0, 1]) < 0.2


def _seeded_noise(queue: "multiprocessing.Queue[list[float]]") -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 (the global generator is what must not matter)
    torch.manual_seed(1)
    queue.put(PrivacyRandomness().normals(4).tolist())


def test_no_seed_of_any_global_generator_has_an_influence_and_processes_differ():
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    for _ in range(2):
        process = context.Process(target=_seeded_noise, args=(queue,))
        process.start()
        process.join()
    assert queue.get() != queue.get()


def test_global_generators_are_not_even_advanced():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    PrivacyRandomness().lattice_noise(100, noise_stddev=1.0, step=2.0**-10)
    PrivacyRandomness().integers(100, 1.0)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_the_noise_covers_all_residues_of_the_lattice_alike_so_low_bits_say_nothing():
    noise = fixed().lattice_noise(MANY, noise_stddev=2.0, step=STEP)
    assert noise.dtype == np.int64
    for residues in (2, 16):
        assert stats.chisquare(np.bincount(noise % residues, minlength=residues)).pvalue > 0.01


@pytest.mark.parametrize("width", [0.5, 1.0, 3.0])
def test_on_a_coarse_lattice_each_integer_has_the_mass_of_the_gaussian_around_it(width):
    noise = fixed().lattice_noise(MANY, noise_stddev=width, step=1.0)
    most = 3 + int(3 * width)
    values = np.arange(-most, most + 1)
    expected = MANY * (stats.norm.cdf((values + 0.5) / width) - stats.norm.cdf((values - 0.5) / width))
    counts = np.array([(noise == value).sum() for value in values])
    common = expected > 5
    assert ((counts - expected)[common] ** 2 / expected[common]).sum() < stats.chi2.isf(1e-3, common.sum())


def test_the_same_entropy_gives_the_same_noise_and_only_a_test_can_pass_it():
    assert (fixed("a").normals(10) == fixed("a").normals(10)).all()
    assert (fixed("a").normals(10) != fixed("b").normals(10)).all()
    assert PrivacyRandomness()._entropy is os.urandom


def test_noise_in_units_of_the_lattice_is_the_same_noise():
    assert (fixed("a").integers(50, 7.5) == fixed("a").lattice_noise(50, noise_stddev=15.0, step=2.0)).all()


def test_uniforms_have_53_bits_and_stay_below_one():
    ones = PrivacyRandomness(lambda size: b"\xff" * size)
    assert (fixed().uniforms(1000) < 1).all()
    assert len({float(value * 2**53) % 4 for value in fixed().uniforms(1000)}) == 4
    assert np.isfinite(ones.normals(1000)).all()


REFUSED = {
    "no noise": lambda r: r.lattice_noise(3, noise_stddev=0.0, step=1e-6),
    "noise that is not a number": lambda r: r.lattice_noise(3, noise_stddev=math.nan, step=1e-6),
    "infinite noise": lambda r: r.lattice_noise(3, noise_stddev=math.inf, step=1e-6),
    "a lattice coarser than the noise": lambda r: r.lattice_noise(3, noise_stddev=0.1, step=1.0),
    "a lattice of no width": lambda r: r.lattice_noise(3, noise_stddev=1.0, step=0.0),
    "integers with hardly any noise": lambda r: r.integers(3, 0.1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_noise_that_would_not_protect_is_refused(name):
    with pytest.raises(NoiseError):
        REFUSED[name](PrivacyRandomness())
