"""The exact formula for releases without sampling: never below the truth, and what the accountants say too."""

import math

import pytest
from scipy.stats import norm

from common.privacy.accounting import SampledGaussian, epsilon, google_accounting, google_event, noise_multiplier_for
from common.privacy.accounting_check import epsilon_cross_check
from common.privacy.gaussian import _delta_at_most, gaussian_epsilon

MUS = (1e-3, 0.01, 0.1, 0.4, 1.0, 2.0, 4.0, 9.0, 30.0)
DELTAS = (1e-12, 1e-9, 1e-6, 1e-5, 1e-3, 0.1)


def true_delta(spent, mu):
    """In logarithms, so that large epsilons do not overflow; scipy's log tail is another implementation than ours."""
    first, second = norm.logcdf(mu / 2 - spent / mu), spent + norm.logcdf(-mu / 2 - spent / mu)
    return math.exp(first) * -math.expm1(second - first)


@pytest.mark.parametrize("mu", MUS)
@pytest.mark.parametrize("delta", DELTAS)
def test_the_formula_is_at_its_delta_and_never_below_it(mu, delta):
    spent = gaussian_epsilon(mu, delta)
    assert true_delta(spent, mu) <= delta * (1 + 1e-9) if spent else true_delta(1e-12, mu) <= delta * (1 + 1e-6)
    if spent:
        assert true_delta(spent * (1 - 1e-5), mu) > delta
        assert _delta_at_most(spent, mu) <= delta, "of the two ends of the interval the upper one"


HISTORIES = {
    "forty rounds of a head": [SampledGaussian(1.0, 6.4, 42)],
    "two kinds of rounds": [SampledGaussian(1.0, 2.4, 4), SampledGaussian(1.0, 6.4, 42)],
    "three evaluations": [SampledGaussian(1.0, 11.0, 3)],
    "much noise": [SampledGaussian(1.0, 300.0, 20)],
    "little noise": [SampledGaussian(1.0, 0.4, 2)],
}


@pytest.mark.parametrize("events", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize("delta", [1e-8, 1e-5, 1e-3])
def test_the_accountant_of_privacy_losses_agrees_from_above(events, delta):
    """Its figure is an upper bound of the exact one, by at most its rounding (steps x interval)."""
    accounting = google_accounting()
    accountant = accounting.pld.PLDAccountant(accounting.NeighboringRelation.REPLACE_SPECIAL, 1e-4)
    for event in events:
        accountant.compose(google_event(event))
    exact, google = epsilon(events, delta), accountant.get_epsilon(delta)
    assert exact <= google + 1e-6
    assert google <= exact + 1e-3 + 2e-3 * exact


@pytest.mark.parametrize("events", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.filterwarnings("ignore")
def test_the_second_accountants_confirm_the_formula(events):
    assert epsilon_cross_check(events, 1e-5).agrees


def test_what_costs_nothing_is_free_and_more_costs_more():
    assert gaussian_epsilon(0.0, 1e-5) == 0
    assert gaussian_epsilon(1e-6, 1e-5) == 0  # two outputs differ by less than delta
    figures = [gaussian_epsilon(mu, 1e-5) for mu in MUS]
    assert figures == sorted(figures)


def test_an_epsilon_of_a_hundred_thousand_is_a_number_too():
    assert gaussian_epsilon(400.0, 1e-5) == pytest.approx(400**2 / 2 + 400 * 4.26, rel=1e-3)


@pytest.mark.parametrize(("target", "steps", "delta"), [(1.0, 3, 1e-5), (8.0, 42, 1e-4), (0.01, 100, 1e-6)])
def test_noise_for_a_target_without_sampling_is_exact_to_its_last_digit(target, steps, delta):
    sigma = noise_multiplier_for(epsilon=target, delta=delta, sampling_rate=1.0, steps=steps)
    assert epsilon([SampledGaussian(1.0, sigma, steps)], delta) <= target
    assert epsilon([SampledGaussian(1.0, sigma * (1 - 4e-5) - 2e-4, steps)], delta) > target


SAMPLED = [(0.2, 1.46, 111), (0.2, 4.0, 200), (0.05, 1.29, 200), (0.1, 16.8, 2000), (0.1, 3.25, 500), (0.01, 2.0, 50)]


@pytest.mark.parametrize(("rate", "sigma", "steps"), SAMPLED)
def test_a_coarse_figure_stands_for_the_fine_one_only_where_they_hardly_differ(rate, sigma, steps):
    accounting = google_accounting()
    accountant = accounting.pld.PLDAccountant(accounting.NeighboringRelation.REPLACE_SPECIAL, 1e-4)
    accountant.compose(google_event(SampledGaussian(rate, sigma, steps)))
    fine = accountant.get_epsilon(1e-5)
    assert fine * (1 - 1e-9) <= epsilon([SampledGaussian(rate, sigma, steps)], 1e-5) <= fine * (1 + 2e-4)
