"""Every number of the report of a real run, computed a second time: from the journal's tables, the plan, the outboxes.

The second way shares no code with the first but the accountant and the reader of plans: SQL instead of the journal's
class, scikit-learn-like counting instead of ``common.privacy.metrics``.
"""

import json
import re
import sqlite3
import struct
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

import simulation.report.figures
from common.plan.guarantee import evaluation_noise_multiplier, evaluations
from common.plan.reading import read_plan
from common.plan.start import start_network
from common.privacy.accounting import COARSE_INTERVAL, SampledGaussian, epsilon
from simulation.report.page import report_page
from simulation.study.test_set import load_test_set

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")


class Numbers(HTMLParser):
    """Collects what carries ``data-figure``: exact values of <data>, drawn values of marks."""

    def __init__(self):
        super().__init__()
        self.exact, self.drawn, self.tags = {}, {}, set()

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.tags.add(tag)
        if "data-figure" in known and "value" in known:
            self.exact[known["data-figure"]] = float(known["value"])
        elif "data-figure" in known:
            self.drawn[known["data-figure"]] = float(known["data-value"])


@pytest.fixture(scope="module")
def page(real_run):
    """The report with everything drawn, also scores of so few patients that it would rather leave them out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation.report.figures, "WIDEST_INTERVAL", 2.0)
        return report_page(real_run.finished.facts)


@pytest.fixture(scope="module")
def shown(page):
    parser = Numbers()
    parser.feed(page)
    return parser


@pytest.fixture(scope="module")
def rows(real_run):
    database = sqlite3.connect(real_run.folder.study.journal)
    names = ("attempts", "aborts", "opened", "applied", "answers", "refusals")
    return {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in names}


def counts_of(rows, real_run):
    """The evaluation counts of each scored version, by hand: (confusion, histogram, confidence)."""
    first_round = {0: 0, 1: real_run.plan.phases[0].rounds}
    bins, found = real_run.plan.evaluation.score_bins, {}
    for attempt, phase, round_number, *_ in rows["attempts"]:
        version = first_round[phase] + round_number - 1
        meta = [row[7] for row in rows["opened"] if row[0] == attempt]
        if meta and version > 0:
            values = np.array(struct.unpack(f"<{len(meta[0]) // 8}q", meta[0])) / 1024
            found[version] = (
                values[:4].reshape(2, 2),
                values[4 : 4 + 2 * bins].reshape(2, bins),
                values[4 + 2 * bins :],
            )
    return found


def area(histogram):
    """AUC by comparing every pair of bins."""
    negatives, positives = histogram
    bins = range(len(negatives))
    wins = sum(positives[a] * negatives[b] * (1.0 if a > b else 0.5 if a == b else 0.0) for a in bins for b in bins)
    return min(max(wins / (positives.sum() * negatives.sum()), 0.0), 1.0)


def test_scores_by_round_and_at_the_end(rows, real_run, shown):
    found = counts_of(rows, real_run)
    assert set(found) == {1, 2, 3}
    name = real_run.plan.task.classes[1]
    for version, (_, histogram, _) in found.items():
        if min(histogram.sum(1)) >= 1:
            assert shown.drawn[f"round.{version}.auc.{name}"] == pytest.approx(area(histogram), abs=1e-6)
    confusion, histogram, _ = found[3]
    for index, label in enumerate(real_run.plan.task.classes):
        if confusion[index].sum() >= 1:
            share = min(max(confusion[index, index] / confusion[index].sum(), 0), 1)
            low, high = (shown.exact[f"final.sensitivity.{label}.{end}"] for end in ("low", "high"))
            assert shown.exact[f"final.sensitivity.{label}"] == pytest.approx(share)
            assert low <= share <= high
            noise_free = binomtest(round(share * 1000), 1000).proportion_ci(method="wilson")
            assert high - low > noise_free.high - noise_free.low  # a handful of patients, and noise on top
    if min(histogram.sum(1)) >= 1:
        assert shown.exact[f"final.auc.{name}"] == pytest.approx(area(histogram))
        low, high = (shown.exact[f"final.auc.{name}.{end}"] for end in ("low", "high"))
        assert low <= area(histogram) <= high


def test_who_took_part(rows, shown):
    for site in SITES:
        present = sum(site in json.loads(row[1]) for row in rows["opened"])
        first_loss = {}
        for attempt, asked, name, outcome, *_ in rows["answers"]:
            if name == site and outcome != "taken" and asked != "result":
                first_loss.setdefault(attempt, asked)
        refused = {row[0] for row in rows["refusals"] if row[1] == site}
        assert shown.exact[f"site.{site}.rounds"] == present
        assert shown.exact[f"site.{site}.missed"] == len(set(first_loss) - refused)
        assert shown.exact[f"site.{site}.refused"] == len(refused)
    assert shown.exact["site.hospital-3.missed"] == 1
    assert shown.exact["rounds.applied"] == len(rows["applied"]) - 1  # the closing round moves no model
    assert shown.exact["attempts"] == len(rows["attempts"])
    assert shown.exact["attempts.aborted"] == len(rows["attempts"]) - len(rows["applied"])


def test_what_left_each_site(real_run, shown):
    for site in SITES:
        lines = [json.loads(line) for line in (real_run.folder.site(site) / "outbox.chain").read_text().splitlines()]
        entries = [line.get("entry", line) for line in lines]
        by_kind = {}
        for entry in (entry for entry in entries if "kind" in entry):
            by_kind.setdefault(entry["kind"], []).append(entry["message_bytes"] + entry["payload_bytes"])
        assert by_kind
        for kind, sizes in by_kind.items():
            assert shown.exact[f"sent.{site}.{kind}.bytes"] == sum(sizes)
            assert shown.exact[f"sent.{site}.{kind}.messages"] == len(sizes)
        assert shown.exact[f"sent.{site}.bytes"] == sum(map(sum, by_kind.values()))


def spent(real_run, rows, site, stratum, until):
    plan, events = real_run.plan, []
    ordered = {row[0]: row for row in rows["attempts"]}
    for attempt in {row[0] for row in rows["answers"] if row[1] == "forward" and row[2] == site}:
        phase = plan.phases[ordered[attempt][1]]
        rate = phase.labelled_sampling_rate if stratum == "labelled" else phase.unlabelled_sampling_rate
        ratio = 1.0 if stratum == "labelled" else phase.unlabelled_clip_ratio
        if attempt <= until and rate > 0:
            events.append(SampledGaussian(rate, phase.noise_multiplier / ratio, 1))
    return events


def test_epsilon_of_each_site_and_along_the_way(real_run, rows, shown):
    delta, last = real_run.plan.privacy.delta, max(row[0] for row in rows["attempts"])
    for stratum in ("labelled", "unlabelled"):
        for site in SITES:
            expected = epsilon(spent(real_run, rows, site, stratum, last), delta)
            assert shown.exact[f"spent.{site}.{stratum}"] == pytest.approx(expected, rel=1e-9)
        for name, value in shown.drawn.items():
            match = re.fullmatch(rf"spent_by\.(\d+)\.{stratum}", name)
            if match:
                histories = [spent(real_run, rows, site, stratum, int(match[1])) for site in SITES]
                longest = max(histories, key=len)
                assert value == pytest.approx(epsilon(longest, delta, interval=COARSE_INTERVAL), abs=1e-5)
                for site, history in zip(SITES, histories, strict=True):
                    expected = epsilon(history, delta, interval=COARSE_INTERVAL)
                    assert shown.exact[f"spent_at.{site}.{match[1]}.{stratum}"] == pytest.approx(expected, abs=1e-5)
    assert shown.exact["spent.hospital-3.labelled"] < shown.exact["spent.hospital-1.labelled"]


def test_the_comparison_and_the_test_scores(real_run, shown):
    pooled = json.loads((real_run.folder.comparisons / "pooled.json").read_text())["estimate"]
    assert shown.drawn["compared.pooled"] == pytest.approx(pooled["value"], abs=1e-6)
    assert shown.drawn["compared.federation"] == pytest.approx(shown.exact["test"], abs=1e-6)
    for number, score in json.loads(real_run.folder.scores.read_text()).items():
        assert shown.drawn[f"test_round.{number}"] == pytest.approx(score["estimate"]["value"], abs=1e-6)
        for label, share in score["shares"].items():
            assert shown.drawn[f"test_round.{number}.sensitivity.{label}"] == pytest.approx(share["value"], abs=1e-6)


def test_the_final_models_scores_come_from_its_file_and_the_test_images(real_run, shown):
    network = start_network(real_run.plan)
    network.load_state_dict(load_file(real_run.folder.study.model / "model.safetensors"), strict=False)
    tests = load_test_set(real_run.folder.test_set, real_run.plan)
    with torch.no_grad():
        chances = torch.softmax(network(tests.images), 1).numpy()
    labels, answers = tests.labels.numpy(), chances.argmax(1)
    assert shown.exact["test"] == pytest.approx(roc_auc_score(labels, chances[:, 1]))
    assert shown.exact["test.low"] < shown.exact["test"] < shown.exact["test.high"]
    assert shown.exact["test.images"] == len(labels)
    for index, label in enumerate(real_run.plan.task.classes):
        right = binomtest(int((answers[labels == index] == index).sum()), int((labels == index).sum()))
        between = right.proportion_ci(method="wilson")
        name = f"test.sensitivity.{label}"
        assert shown.exact[name] == pytest.approx(right.statistic)
        assert (shown.exact[f"{name}.low"], shown.exact[f"{name}.high"]) == pytest.approx((between.low, between.high))
    drawn = [shown.drawn[f"test_calibration.{place}"] for place in range(calibrations(shown))]
    sure = chances.max(1)
    bins = [(sure >= low / 10) & ((sure < (low + 1) / 10) | (low == 9)) for low in range(10)]
    assert drawn == pytest.approx([float((answers == labels)[one].mean()) for one in bins if one.any()], abs=1e-6)


def calibrations(shown):
    return sum(name.startswith("test_calibration.") for name in shown.drawn)


def test_what_the_plan_says_and_what_its_noise_buys(real_run, shown):
    plan = read_plan(real_run.folder.study.plan)
    sites, rules, delta = plan.sites, plan.secure_aggregation, plan.privacy.delta
    assert shown.exact["plan.sites"] == len(sites) == 4
    assert shown.exact["plan.rounds"] == sum(phase.rounds for phase in plan.phases) == 3
    assert shown.exact["plan.attempts"] == sum(phase.maximum_attempts for phase in plan.phases)
    assert shown.exact["plan.epsilon"] == plan.privacy.epsilon
    assert shown.exact["plan.delta"] == delta
    assert shown.exact["plan.minimum_survivors"] == rules.minimum_survivors
    assert shown.exact["plan.colluders"] == rules.assumed_colluders
    worst = max(("labelled", "unlabelled"), key=lambda stratum: bought(plan, stratum, 1.0))
    name = f"bought.{max(('labelled', 'unlabelled', 'validation'), key=lambda s: stratum_cost(plan, s))}"
    assert shown.exact[name] == pytest.approx(max(bought(plan, worst, 1.0), plan.evaluation.epsilon))
    assert shown.exact["bought.validation"] == plan.evaluation.epsilon
    # Each observer can subtract the noise of so many survivors of the smallest sum; the rest still stands.
    honest = rules.minimum_survivors - rules.assumed_colluders
    known = {"outsider": 0, "guarantee": rules.assumed_colluders, "hospital": 1, "hospital_with_colluders": 2}
    known["all_others"] = rules.minimum_survivors - 1
    for observer, shares in known.items():
        left = ((rules.minimum_survivors - shares) / honest) ** 0.5
        most = max(bought(plan, stratum, left) for stratum in ("labelled", "unlabelled", "validation"))
        # The tails that drawn noise lacks are charged beside it: next to nothing for whoever the guarantee is towards,
        # up to a few thousandths of epsilon where less noise stands.
        assert shown.exact[f"seen.{observer}"] >= most * (1 - 1e-6), observer
        if observer != "all_others":  # where a single share of the noise stands, its tails weigh most
            assert shown.exact[f"seen.{observer}"] <= most * 1.02, observer
        if observer in ("outsider", "guarantee"):
            assert shown.exact[f"seen.{observer}"] == pytest.approx(most, rel=1e-6), observer


def stratum_cost(plan, stratum):
    return plan.evaluation.epsilon if stratum == "validation" else bought(plan, stratum, 1.0)


def bought(plan, stratum, noise_left):
    """Epsilon of all attempts that the plan allows, with part of the noise subtracted."""
    if stratum == "validation":
        noise = noise_left * evaluation_noise_multiplier(plan)
        return epsilon([SampledGaussian(1.0, noise, evaluations(plan))], plan.privacy.delta)
    events = []
    for phase in plan.phases:
        rate = phase.labelled_sampling_rate if stratum == "labelled" else phase.unlabelled_sampling_rate
        ratio = 1.0 if stratum == "labelled" else phase.unlabelled_clip_ratio
        if rate > 0:
            events.append(SampledGaussian(rate, noise_left * phase.noise_multiplier / ratio, phase.maximum_attempts))
    return epsilon(events, plan.privacy.delta)


def test_the_interval_of_a_noised_share_holds_the_truth_about_as_often_as_it_says():
    rng, held, tries = np.random.default_rng(0), 0, 2000
    for _ in range(tries):
        right = rng.binomial(200, 0.85)
        row = np.array([200 - right, right]) + rng.normal(0, 6.0, 2)
        found = dict(simulation.report.figures._sensitivity("ill", row, 1, 6.0))
        held += found["sensitivity.ill.low"] <= 0.85 <= found["sensitivity.ill.high"]
    assert abs(held / tries - 0.95) < 4 * (0.95 * 0.05 / tries) ** 0.5 + 0.01
    assert pytest.approx(norm.ppf(0.975), abs=1e-5) == simulation.report.figures.NORMAL_95


def test_every_figure_on_the_page_belongs_to_a_family_that_is_recomputed_here(shown):
    families = (
        r"plan\.\w+", r"bought\.\w+", r"rounds\.applied", r"attempts(\.aborted)?", r"seconds",
        r"(round\.\d+|final)\.(auc|sensitivity)\.\w+(\.low|\.high)?", r"final\.calibration_error",
        r"site\.[\w-]+\.(rounds|missed|refused)", r"sent\.[\w-]+(\.\w+)?\.(bytes|messages)", r"spent\.[\w-]+\.\w+",
        r"spent_by\.\d+\.\w+", r"spent_at\.[\w-]+\.\d+\.\w+", r"seen\.\w+",
        r"test(\.sensitivity\.\w+)?(\.low|\.high)?", r"test\.images",
        r"test_round\.\d+(\.sensitivity\.\w+)?", r"compared\.[\w-]+",
        r"(test_)?roc\.\d+", r"(test_)?calibration\.\d+",
    )  # fmt: skip
    for name in (*shown.exact, *shown.drawn):
        assert any(re.fullmatch(family, name) for family in families), name


def test_curves_come_from_the_summed_counts(rows, real_run, shown):
    _, histogram, confidence = counts_of(rows, real_run)[3]
    totals = np.maximum(histogram.sum(1), 1)
    best = [0.0, 0.0]
    for index in range(histogram.shape[1]):
        cut = histogram.shape[1] - 1 - index
        rates = [min(max(histogram[row, cut:].sum() / totals[row], 0), 1) for row in (0, 1)]
        best = [max(pair) for pair in zip(best, rates, strict=True)]
        assert shown.drawn[f"roc.{index + 1}"] == pytest.approx(best[1], abs=1e-6)
    wrong, right = np.maximum(confidence.reshape(2, -1), 0)
    shares = [r / (w + r) for w, r in zip(wrong, right, strict=True) if w + r >= 1]
    drawn = [value for name, value in shown.drawn.items() if name.startswith("calibration.")]
    assert drawn == pytest.approx(shares, abs=1e-6)


def test_the_page_needs_no_network_and_runs_nothing(page, shown):
    assert not {"script", "iframe", "object", "link", "img"} & shown.tags
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", page)
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_scores_that_say_nothing_are_left_out_and_the_page_says_so(real_run, page):
    assert real_run.finished.report.read_text() == report_page(real_run.finished.facts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation.report.figures, "WIDEST_INTERVAL", 0.0)
        bare = report_page(real_run.finished.facts)
    assert 'data-figure="round.3.auc' in page
    assert 'data-figure="round.3.auc' not in bare
    assert "that score says nothing here" in bare
    assert "that score says nothing here" not in page


def test_a_phase_that_ended_early_is_said_so(real_run, page):
    facts = real_run.finished.facts
    early = [attempt for attempt in facts.attempts if (attempt.phase, attempt.round_number) != (1, 2)]
    assert "Phase student ended after 1 of 2 rounds" in report_page(replace(facts, attempts=tuple(early)))
    assert "ended after" not in page


LISTED = {  # what issue 6 wants on the page
    "what was asked": "What was asked",
    "who took part": "Who took part",
    "scores by round": "How the model grew",
    "scores at the end": "The final model",
    "epsilon by attempt, site and stratum": "Epsilon of each hospital, attempt by attempt",
    "each kind of observer": "Who could learn how much about one patient",
    "what left": "What left each hospital",
    "dropouts and refusals": "Dropouts and refusals, one by one",
    "what it bought": "What working together bought",
    "in short": "For the data protection officer",
}


@pytest.mark.parametrize("words", LISTED.values(), ids=LISTED)
def test_the_page_says(page, words):
    assert words in page


def test_a_lost_site_is_listed_with_its_attempt_and_stage(page, rows):
    (attempt,) = (row[0] for row in rows["attempts"] if row[2] == 2)  # where the scenario lets it drop out
    assert f"<td>{attempt}</td><td>hospital-3</td><td>lost at order</td>" in page
