"""The lattice of the private release: how fine it is, what it costs, and what is refused."""

import math

import pytest

from common.errors import NoiseError
from common.lattice import charged_noise_multiplier, lattice_step, require_fine_lattice, sensitivity_growth


@pytest.mark.parametrize("clipping_norm", [1.0, 0.1, 7.3, 1e-6, 1e6])
@pytest.mark.parametrize("num_parameters", [1, 1000, 11_000_000])
def test_the_step_is_a_power_of_two_that_adds_a_millionth_to_the_sensitivity(clipping_norm, num_parameters):
    step = lattice_step(clipping_norm, num_parameters)
    assert math.frexp(step)[0] == 0.5
    growth = sensitivity_growth(step, num_parameters)
    assert 2.0**-21 * clipping_norm < growth <= 2.0**-20 * clipping_norm


def test_a_coarser_fixed_point_step_wins_and_is_charged():
    assert lattice_step(1.0, 100, coarsest=0.001) == 0.001
    charged = charged_noise_multiplier(2.0, clipping_norm=1.0, step=0.001, num_parameters=100)
    assert charged == pytest.approx(2.0 / 1.01)


REFUSED = {
    "shares of fewer than 1024 steps": {"share_stddev": 1.0, "step": 1 / 1000, "num_parameters": 10},
    "rounding that adds 2 % to the sensitivity": {"share_stddev": 10.0, "step": 0.001, "num_parameters": 400},
    "noise that is not a number": {"share_stddev": math.nan, "step": 0.001, "num_parameters": 1},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_coarse_lattice_is_refused_for(name):
    with pytest.raises(NoiseError):
        require_fine_lattice(clipping_norm=1.0, **REFUSED[name])


def test_the_lattice_of_32_bit_words_is_fine_enough_for_a_hundred_thousand_parameters():
    step = 2 * 16.0 / 2**32
    require_fine_lattice(clipping_norm=1.0, share_stddev=1.0, step=step, num_parameters=100_000)


@pytest.mark.parametrize("clipping_norm", [0.0, -1.0, math.nan, math.inf])
def test_a_clipping_norm_without_a_lattice_is_refused(clipping_norm):
    with pytest.raises(NoiseError):
        lattice_step(clipping_norm, 10)
