"""Every number of the report of a real run, computed a second time: from the journal's tables, the plan, the outboxes.

The second way shares no code with the first but the accountant and the reader of plans: SQL instead of the journal's
class, scikit-learn-like counting instead of ``common.metrics``.
"""

import json
import re
import sqlite3
import struct
from html.parser import HTMLParser

import numpy as np
import pytest

import simulation.report.figures
from common.accounting import COARSE_INTERVAL, SampledGaussian, epsilon
from simulation.report.page import report_page

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
            assert shown.exact[f"final.sensitivity.{label}"] == pytest.approx(share)
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
    assert shown.exact["spent.hospital-3.labelled"] < shown.exact["spent.hospital-1.labelled"]


def test_the_comparison_and_the_test_scores(real_run, shown):
    pooled = json.loads((real_run.folder.comparisons / "pooled.json").read_text())["estimate"]
    assert shown.drawn["compared.pooled"] == pytest.approx(pooled["value"], abs=1e-6)
    assert shown.drawn["compared.federation"] == pytest.approx(shown.exact["test"], abs=1e-6)
    for number, score in json.loads(real_run.folder.scores.read_text()).items():
        assert shown.drawn[f"test_round.{number}"] == pytest.approx(score["estimate"]["value"], abs=1e-6)
        for label, share in score["shares"].items():
            assert shown.drawn[f"test_round.{number}.sensitivity.{label}"] == pytest.approx(share, abs=1e-6)


def test_every_figure_on_the_page_belongs_to_a_family_that_is_recomputed_here(shown):
    families = (
        r"plan\.\w+", r"bought\.\w+", r"rounds\.applied", r"attempts(\.aborted)?", r"seconds",
        r"(round\.\d+|final)\.(auc|sensitivity)\.\w+(\.low|\.high)?", r"final\.calibration_error",
        r"site\.[\w-]+\.(rounds|missed|refused)", r"sent\.[\w-]+(\.\w+)?\.(bytes|messages)", r"spent\.[\w-]+\.\w+",
        r"spent_by\.\d+\.\w+", r"test(\.low|\.high|\.images|\.sensitivity\.\w+)?",
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
