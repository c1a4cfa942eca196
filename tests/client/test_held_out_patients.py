"""Held-out patients: the plan's evaluation epsilon is a ceiling, whatever is ordered and in whatever order."""

import numpy as np
import pytest

from client.learning.cached_patients import CachedPatients
from client.learning.mechanism import SumRules
from client.ledger.budget import Stratum
from common.plan.guarantee import evaluation_noise_multiplier, evaluations
from common.plan.schedule import count_layout

CLOSING, SCORED, UNSCORED = 11, 6, 4  # of ten rounds every fifth is scored, and the closing one


@pytest.fixture(scope="module")
def prepared(prepare):
    """A study with room for dropouts: fourteen attempts for ten rounds, four scores planned."""
    return prepare(
        rounds=10,
        changes={
            "every_rounds = 10": "every_rounds = 5\nscore_bins = 256",  # many counts: the noise's width shows
            "maximum_attempts = 12": "maximum_attempts = 14",
            "noise_multiplier = ": "noise_multiplier = 3.0 #",
            "coordinate_range = ": "coordinate_range = 24.0 #",  # room for that noise
        },
    )


@pytest.fixture
def held_out_reads(monkeypatch):
    """Every held-out patient that a site reads, by the site's list."""
    read, found = CachedPatients.read, []

    def noted(self, patient_key):
        if patient_key in self.held_out():
            found.append(patient_key)
        return read(self, patient_key)

    monkeypatch.setattr(CachedPatients, "read", noted)
    return found


ORDERS = {
    "the closing round again and again": [CLOSING] * 14,
    "a scored round again and again": [SCORED] * 14,
    "everything out of order": [CLOSING, SCORED, UNSCORED, CLOSING, SCORED, SCORED, CLOSING, SCORED, CLOSING]
    + [SCORED] * 5,
}
# how many of the orders may read held-out patients: four are planned, the last of them for the closing round
MAY_READ = {"the closing round again and again": 4, "a scored round again and again": 3, "everything out of order": 4}


@pytest.mark.parametrize("orders", ORDERS)
def test_no_order_of_orders_spends_more_than_the_evaluation_epsilon(rounds, study, sites, held_out_reads, orders):
    plan = study.plan
    assert evaluations(plan) == 4
    reading = 0
    for attempt, number in enumerate(ORDERS[orders], 1):
        before = len(held_out_reads)
        rounds.run(rounds.begin(study, attempt=attempt, round_number=number), sites)
        reading += len(held_out_reads) > before
    assert reading == MAY_READ[orders]
    for site in sites.values():
        [spent] = rounds.spending(site)
        assert len(spent.events[Stratum.VALIDATION]) == MAY_READ[orders]
        assert spent.epsilon(Stratum.VALIDATION) <= plan.evaluation.epsilon
        assert len(spent.attempts) == 14, "no order was refused"


@pytest.fixture
def width(study, sites):
    """Standard deviation that the plan promises for the noise in a count of all sites together, in 1 / 1024 patient."""
    shares = study.plan.secure_aggregation.honest_survivors
    multiplier = evaluation_noise_multiplier(study.plan)
    one = SumRules.of_counts(count_layout(study.plan), held_out=0, noise_multiplier=multiplier, honest_survivors=shares)
    return one.stddev * np.sqrt(len(sites))


def counts_of(rounds, study, sites, attempt, number=CLOSING):
    opened = rounds.run(rounds.begin(study, attempt=attempt, round_number=number), sites)
    return opened.total.meta.view(np.int64).astype(float)


def test_scores_leave_with_noise_of_the_claimed_width(rounds, study, sites, width):
    """One model scored four times: what differs is noise. Of 3,084 draws the width is known to 1.3 %."""
    scores = np.stack([counts_of(rounds, study, sites, attempt) for attempt in range(1, 5)])
    assert 0.93 < np.sqrt(scores.var(0, ddof=1).mean()) / width < 1.07


def test_beyond_the_planned_scores_a_site_sends_the_same_noise_without_a_patient_and_says_so(  # noqa: PLR0917 (fixtures)
    rounds, study, sites, width, held_out_reads, caplog
):
    for attempt in range(1, 5):
        counts_of(rounds, study, sites, attempt)
    held_out_reads.clear()
    assert "used up" not in caplog.text
    drawn = np.concatenate([counts_of(rounds, study, sites, attempt) for attempt in (5, 6, 7)])
    assert not held_out_reads
    assert caplog.text.count("4 scores are used up") == 3 * len(sites)
    assert 0.93 < drawn.std() / width < 1.07
    assert abs(drawn.mean()) < 5 * width / np.sqrt(len(drawn))


def test_a_round_that_is_not_scored_reads_no_held_out_patient_and_carries_no_counts(
    rounds, study, sites, held_out_reads
):
    assert not counts_of(rounds, study, sites, 1, UNSCORED).any()
    assert not held_out_reads
    assert Stratum.VALIDATION not in rounds.spending(sites["north"])[0].events
