"""A score is not one hospital's word: what no honest sum of counts can be is void, and an honest one never is."""

import math

import numpy as np
import pytest

from common.plan.reading import parse_plan
from common.plan.schedule import count_layout
from common.privacy.metrics import UNITS_PER_PATIENT
from server.model.evaluation import count_noise_stddev, evaluate
from server.model.score_bounds import most_held_out
from server.study.folder import open_study
from server.study.progress import current_state, open_journal
from server.study.status import study_status

SITES = [f"site-{number}" for number in range(1, 6)]
TASKS = {
    "two classes": {"kind": "classification", "classes": ["no", "yes"]},
    "three classes": {"kind": "classification", "classes": ["no", "benign", "malignant"]},
    "several labels": {"kind": "multi_label", "classes": ["mass", "nodule"]},
    "segmentation": {"kind": "segmentation", "classes": ["background", "liver", "tumour"]},
}


@pytest.fixture
def planned(small_document):
    def make(task="two classes", *, patients=400, noise="none", bins=8):
        document = small_document(SITES, noise=noise)
        for site in document["sites"]:
            site["labelled_patients"] = patients
        document["task"] |= TASKS[task]
        document["evaluation"]["score_bins"] = bins
        if task == "segmentation":
            document["network"]["name"] = "unet"
        return parse_plan(document, "test")

    return make


def honest(plan, patients, seed=0):
    """Counts of patients with random scores and labels, made as a hospital makes them (``client.learning``)."""
    layout, generator = count_layout(plan), np.random.default_rng(seed)
    counts = np.zeros(layout.length)
    tables, bins, classes = layout.tables(counts), layout.bins, layout.classes
    for _ in range(patients):
        if "dice" in tables:
            found = generator.random(layout.scored) < 0.8
            tables["dice"] += found * generator.random(layout.scored)
            tables["present"] += found
        elif "confusion" not in tables:
            for label in range(classes):
                known, has = generator.random() < 0.9, int(generator.random() < 0.3)
                tables["histograms"][label, has, int(generator.random() * bins)] += known
        else:
            scores = generator.dirichlet(np.ones(classes))
            true, answered = generator.integers(classes), int(scores.argmax())
            tables["confusion"][true, answered] += 1
            for row, index in enumerate(range(1, 2) if classes == 2 else range(classes)):
                tables["histograms"][row, int(true == index), min(int(scores[index] * bins), bins - 1)] += 1
            tables["confidence"][int(true == answered), min(int(scores[answered] * bins), bins - 1)] += 1
    return counts


def scored(plan, counts):
    return evaluate(plan, np.rint(counts * UNITS_PER_PATIENT).astype(np.int64).view(np.uint64), len(SITES))


@pytest.mark.parametrize("noise", ["none", "distributed"])
@pytest.mark.parametrize("task", TASKS)
def test_honest_counts_are_never_void(planned, task, noise):
    plan = planned(task, noise=noise)
    spread, generator = count_noise_stddev(plan, len(SITES)), np.random.default_rng(3)
    for seed in range(20):
        counts = honest(plan, int(0.2 * 5 * 400 * (0.9 + 0.01 * seed)), seed)
        found = scored(plan, counts + spread * generator.standard_normal(len(counts)))
        assert found.void == ""
        assert math.isfinite(found.score)


@pytest.mark.parametrize("bins", [7, 8])
def test_a_network_that_knows_nothing_scores_everybody_one_half_and_that_is_not_void(planned, bins):
    plan = planned(bins=bins)
    counts = np.zeros(count_layout(plan).length)
    tables = count_layout(plan).tables(counts)
    tables["confusion"][:, 0] = 100
    tables["histograms"][0, :, bins // 2] = 100
    tables["confidence"][[1, 0], bins // 2] = 100
    assert scored(plan, counts).void == ""


def perfect(plan, patients):
    """Perfect patients of each class, in every table, as one hospital would add them."""
    counts = np.zeros(count_layout(plan).length)
    tables = count_layout(plan).tables(counts)
    tables["histograms"][0, 0, 0] = tables["histograms"][0, 1, -1] = patients
    tables["confusion"][:] = patients * np.eye(2)
    tables["confidence"][1, -1] = 2 * patients
    return counts


def only(plan, table, change):
    counts = np.zeros(count_layout(plan).length)
    change(count_layout(plan).tables(counts)[table])
    return counts


def moved(table):
    """Scores from everywhere to the two ends, with no patient more: c11 of the inputs on which this failed."""
    table[0, 0, :] -= 5
    table[0, 1, :] -= 5
    table[0, 0, 1] += 20
    table[0, 1, 6] += 20


def put(index, value):
    return lambda table: table.__setitem__(index, value)


FORGED = {
    "more perfect patients than are declared": lambda plan: perfect(plan, 400),
    "a million of them": lambda plan: perfect(plan, 10**6),
    "scores moved to the ends, the number of patients unchanged": lambda plan: only(plan, "histograms", moved),
    "better answers with the scores left as they are": lambda plan: only(
        plan, "confusion", put((slice(None), slice(None)), [[30, -30], [-30, 30]])
    ),
    "negative counts": lambda plan: only(plan, "confidence", put((0, 0), -60)),
    "right answers that no confusion shows": lambda plan: only(plan, "confidence", put((slice(None), 7), [-40, 40])),
    "patients of the other class": lambda plan: only(plan, "histograms", put((0, slice(None), 7), [-30, 30])),
}


@pytest.mark.parametrize("case", FORGED)
def test_counts_that_cannot_be_those_of_the_declared_patients_are_void_and_say_so(planned, case):
    plan = planned()
    found = scored(plan, honest(plan, 400) + FORGED[case](plan))
    assert found.void.startswith("void: ")
    assert math.isnan(found.score)
    document = found.document()
    assert document["score"] is None
    assert document["void"] == found.void


def test_more_dice_than_patients_is_void(planned):
    plan = planned("segmentation")
    assert "Dice of class 2" in scored(plan, honest(plan, 300) + only(plan, "dice", put(1, 200.0))).void


def test_a_void_score_decides_nothing_and_the_status_says_why(make_federation):
    federation = make_federation(noise="none", patients=4000)
    for work in federation.work.values():
        honest_counts = work.counts
        if work.number == 0:
            work.counts = lambda version, of=honest_counts, plan=federation.plan: (
                of(version) + (perfect(plan, 10**5) * UNITS_PER_PATIENT).astype(np.int64)
            )
    federation.run()
    study = open_study(federation.study)
    journal = open_journal(study)
    assert current_state(study, journal).best_score == -math.inf
    scores = study_status(study, journal)["scores"]
    assert {score["score"] for score in scores.values()} == {None}
    assert all("void" in score["void"] for score in scores.values())


def test_the_most_held_out_patients_leave_room_for_rounding_and_the_draw(planned):
    plan = planned(patients=400)
    assert 1.1 * 0.2 * 2000 < most_held_out(plan) < 0.3 * 2000
