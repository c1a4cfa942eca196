"""The accountant against published figures, closed forms, and a second accountant; and what it refuses."""

import importlib
import math

import pytest
from scipy.stats import norm

from common.privacy.accounting import SampledGaussian, epsilon, exceeds, merge, noise_multiplier_for
from common.privacy.accounting_check import RDP_ORDERS, epsilon_cross_check
from common.privacy.errors import AccountingError
from common.privacy.noise_placement import NoiseShares, observer_epsilon

# Published figures that a tight accountant must reach: (sampling rate, noise multiplier, steps), delta, epsilon.
TIGHT = {
    "Balle and Wang 2018, theorem 8: one Gaussian, sigma 1": ((1.0, 1.0, 1), 1e-5, 4.377178),
    "Balle and Wang 2018, theorem 8: sigma 0.5": ((1.0, 0.5, 1), 1e-6, 10.997151),
    "Balle and Wang 2018, theorem 8: the sigma whose epsilon is 1": ((1.0, 3.730632, 1), 1e-5, 1.0),
    "the same for 200 steps of sigma 10, which are one of 10 / sqrt(200)": ((1.0, 10.0, 200), 1e-5, 6.572970),
    "Google dp_accounting accountant_test.py 'base': sigma for epsilon 1": ((0.01, 0.67379294682, 1), 1e-5, 1.0),
    "Google dp_accounting accountant_test.py, 25 queries of sensitivity 6": ((0.001, 3.20956502598 / 6, 25), 1e-5, 1.0),
    "closed form of one Poisson step (Zhu, Dong and Wang 2022)": ((0.1, 1.0, 1), 1e-5, 1.684544),
}

# Published figures of Renyi accountants: upper bounds, so ours must stay below; "classic" is RDP - ln(delta) / (a - 1).
RENYI = {
    "Abadi et al. 2016, section 3.2: 1.26": ((0.01, 4.0, 10_000), 1e-5, "classic", 1.26),
    "TF-Privacy tutorial table, 15 epochs: 1.19": ((256 / 60000, 1.3, 15 * 60000 // 256), 1e-5, "classic", 1.19),
    "TF-Privacy tutorial table, 60 epochs: 3.01": ((256 / 60000, 1.1, 60 * 60000 // 256), 1e-5, "classic", 3.01),
    "TF-Privacy tutorial table, 45 epochs: 7.10": ((256 / 60000, 0.7, 45 * 60000 // 256), 1e-5, "classic", 7.10),
    "TF-Privacy compute_dp_sgd_privacy_test.py Test0": ((150 / 60000, 1.3, 6000), 1e-5, "improved", 0.7242234),
    "TF-Privacy compute_dp_sgd_privacy_test.py Test1": ((0.001, 1.0, 30_000), 1e-7, "improved", 1.4154988),
    "Opacus accountants_test.py test_rdp_accountant": ((0.04, 1.5, 2250), 1e-5, "improved", 7.3291112),
}

REFUSED_EVENTS = {
    "a rate of zero": (0.0, 1.0, 1),
    "a rate above one": (1.01, 1.0, 1),
    "a rate that is not a number": (math.nan, 1.0, 1),
    "no noise": (0.1, 0.0, 1),
    "negative noise": (0.1, -1.0, 1),
    "noise that is not a number": (0.1, math.nan, 1),
    "infinite noise": (0.1, math.inf, 1),
    "no steps": (0.1, 1.0, 0),
    "half a step": (0.1, 1.0, 1.5),
    "true instead of one step": (0.1, 1.0, True),
    "text instead of a rate": ("0.1", 1.0, 1),
}


@pytest.mark.parametrize("name", TIGHT)
def test_epsilon_of_record_reaches_the_published_tight_figure(name):
    (rate, sigma, steps), delta, published = TIGHT[name]
    assert epsilon([SampledGaussian(rate, sigma, steps)], delta) == pytest.approx(published, abs=2e-5)


def _renyi(event: SampledGaussian, delta: float, conversion: str) -> float:
    rdp = importlib.import_module("opacus.accountants.analysis.rdp")
    orders = list(RDP_ORDERS)
    spent = rdp.compute_rdp(
        q=event.sampling_rate, noise_multiplier=event.noise_multiplier, steps=event.steps, orders=orders
    )
    if conversion == "improved":
        return rdp.get_privacy_spent(orders=orders, rdp=spent, delta=delta)[0]
    return min(cost - math.log(delta) / (order - 1) for cost, order in zip(spent, orders, strict=True))


@pytest.mark.parametrize("name", RENYI)
def test_published_renyi_figures_are_reproduced_and_never_undercut_ours(name):
    (rate, sigma, steps), delta, conversion, published = RENYI[name]
    event = SampledGaussian(rate, sigma, steps)
    assert _renyi(event, delta, conversion) == pytest.approx(published, rel=3e-3)
    assert 0.6 * published < epsilon([event], delta, interval=1e-3) < published


def _delta_of_gaussian(spent: float, sigma: float) -> float:
    return norm.cdf(0.5 / sigma - spent * sigma) - math.exp(spent) * norm.cdf(-0.5 / sigma - spent * sigma)


@pytest.mark.parametrize(("rate", "sigma", "delta"), [(0.1, 1.0, 1e-5), (0.01, 0.7, 1e-5), (0.5, 2.0, 1e-6)])
def test_one_poisson_step_agrees_with_its_closed_form(rate, sigma, delta):
    # delta(eps) = q delta_G(ln(1 + (e^eps - 1) / q)): the remove direction, which dominates
    spent = epsilon([SampledGaussian(rate, sigma, 1)], delta)
    back = rate * _delta_of_gaussian(math.log1p(math.expm1(spent) / rate), sigma)
    assert back == pytest.approx(delta, rel=1e-3)


HISTORIES = {
    "one plan": [SampledGaussian(0.1, 4.0, 2000)],
    "teacher and student phases and evaluations": [
        SampledGaussian(1.0, 12.0, 40),
        SampledGaussian(0.2, 1.9, 120),
        SampledGaussian(1.0, 40.0, 20),
    ],
    "nothing": [],
}


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.filterwarnings("error::UserWarning:opacus")
def test_the_second_accountants_confirm_the_first_and_say_nothing_else(name):
    check = epsilon_cross_check(HISTORIES[name], 1e-5)
    assert check.agrees
    assert check.pld == epsilon(HISTORIES[name], 1e-5)
    if HISTORIES[name]:
        assert check.pld < check.rdp < 1.2 * check.pld


TARGETS = [(1.0, 0.05, 200), (3.0, 0.1, 500), (8.0, 0.2, 200), (8.0, 1.0, 40), (0.05, 0.25, 200), (0.5, 1.0, 10)]


@pytest.mark.parametrize(("target", "rate", "steps"), TARGETS)
def test_noise_for_a_target_is_enough_and_hardly_more(target, rate, steps):
    sigma = noise_multiplier_for(epsilon=target, delta=1e-5, sampling_rate=rate, steps=steps)
    assert epsilon([SampledGaussian(rate, sigma, steps)], 1e-5) <= target
    assert epsilon([SampledGaussian(rate, sigma * 0.999, steps)], 1e-5) > target
    assert sigma * 10_000 == pytest.approx(round(sigma * 10_000), abs=1e-6)


def test_noise_for_the_plans_of_the_design_table_lies_where_it_was_measured():
    measured = {(200, 0.05, 3.0): 1.29, (200, 0.2, 8.0): 1.89, (500, 0.1, 3.0): 3.25, (1000, 0.1, 1.0): 11.9}
    for (steps, rate, target), sigma in measured.items():
        found = noise_multiplier_for(epsilon=target, delta=1e-5, sampling_rate=rate, steps=steps)
        assert found == pytest.approx(sigma, rel=5e-3)


@pytest.mark.parametrize("name", REFUSED_EVENTS)
def test_an_event_that_cannot_be_charged_cannot_be_made(name):
    with pytest.raises(AccountingError):
        SampledGaussian(*REFUSED_EVENTS[name])


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan, True, "1e-5"])
def test_a_delta_without_meaning_is_refused(delta):
    with pytest.raises(AccountingError):
        epsilon([SampledGaussian(0.1, 1.0, 1)], delta)


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf, 1e4])
def test_an_epsilon_without_meaning_is_refused(target):
    with pytest.raises(AccountingError):
        noise_multiplier_for(epsilon=target, delta=1e-5, sampling_rate=0.1, steps=10)


def test_an_unknown_kind_of_event_is_never_free():
    class Free(SampledGaussian):
        pass

    for stranger in (Free(0.1, 1.0, 1), None, (0.1, 1.0, 1)):
        with pytest.raises(AccountingError, match="cannot be charged"):
            epsilon([SampledGaussian(0.1, 1.0, 1), stranger], 1e-5)


def test_equal_mechanisms_add_up_and_order_does_not_matter():
    first, second = SampledGaussian(0.1, 2.0, 3), SampledGaussian(0.2, 2.0, 1)
    assert merge([second, first, first]) == (SampledGaussian(0.1, 2.0, 6), second)
    assert epsilon([first, second, first], 1e-5) == epsilon([second, SampledGaussian(0.1, 2.0, 6)], 1e-5)
    assert epsilon([], 1e-5) == 0


def test_a_ceiling_is_judged_by_the_figure_of_record():
    history = [SampledGaussian(0.1, 100.0, 100)]  # 0.02728 at the fine interval, 0.02970 at the coarse one
    assert not exceeds(history, delta=1e-5, ceiling=0.0285)
    assert exceeds(history, delta=1e-5, ceiling=0.027)


def test_sites_shares_add_up_to_the_full_noise_of_the_guaranteed_honest():
    shares = NoiseShares(minimum_survivors=4, assumed_colluders=1)
    assert shares.honest_survivors == 3
    assert math.sqrt(3 * shares.share_of(2.0) ** 2) == pytest.approx(2.0)
    assert shares.seen_by(2.0, known_shares=1) == pytest.approx(2.0)
    assert shares.seen_by(2.0, known_shares=4) == 0


def test_a_hospital_that_subtracts_its_own_noise_sees_more_and_this_is_said():
    events = [SampledGaussian(0.2, noise_multiplier_for(epsilon=8, delta=1e-5, sampling_rate=0.2, steps=200), 200)]
    without = observer_epsilon(events, 1e-5, NoiseShares(minimum_survivors=3, assumed_colluders=0))
    assert without.guarantee == without.outsider == pytest.approx(8, abs=0.01)
    assert without.hospital == pytest.approx(10.7, abs=0.1)  # sigma sqrt(2 / 3)
    one = observer_epsilon(events, 1e-5, NoiseShares(minimum_survivors=4, assumed_colluders=1))
    assert one.outsider < one.hospital == one.guarantee == without.guarantee
    assert one.hospital_with_colluders == without.hospital
    # local: the tails of the noise are cut in one place and not in three, which is in the ninth digit
    assert observer_epsilon(events, 1e-5, None).hospital == pytest.approx(without.guarantee, rel=1e-8)
    weak = [SampledGaussian(1.0, 0.2, 1)]
    assert observer_epsilon(weak, 1e-5, NoiseShares(3, 0)).hospital == math.inf


@pytest.mark.parametrize(("survivors", "colluders"), [(2, 0), (3, 2), (3, -1), (4, True), (3.0, 0)])
def test_shares_that_leave_fewer_than_two_honest_sites_are_refused(survivors, colluders):
    with pytest.raises(AccountingError):
        NoiseShares(survivors, colluders)
