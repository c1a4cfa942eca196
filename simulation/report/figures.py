"""Every number that the report shows, by name, computed from the facts. The page prints these and computes nothing.

Names: ``plan.epsilon``, ``rounds.applied``, ``round.12.auc``, ``final.sensitivity``, ``spent.north.labelled``,
``sent.north.masked.bytes``, ``compared.pooled``, ... A test computes each of them a second time, from the journal.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final, TypeAlias

import numpy as np

from common.plan.guarantee import guarantee, seen_by
from common.plan.plan import StudyPlan
from common.plan.task import TaskKind
from common.privacy.accounting import COARSE_INTERVAL, SampledGaussian, epsilon
from common.privacy.metrics import (
    CountKind,
    CountLayout,
    Counts,
    area_under_curve,
    calibration_error,
    mean_dice,
)
from simulation.report.facts import Attempt, Estimate, Outcome, PublicScore, RunFacts
from simulation.report.intervals import share_estimate

Figures: TypeAlias = dict[str, float]

NORMAL_95: Final = 1.959964
WIDEST_INTERVAL: Final = 0.5  # of an AUC; wider ones say nothing and are not drawn
MOST_COURSES: Final = 12  # sites whose epsilon is shown attempt by attempt
CURVE_POINTS: Final = 12  # of the epsilon curve; each costs a composition of privacy losses


def figures(facts: RunFacts) -> Figures:
    """Return all numbers of the report."""
    numbers: Figures = {}
    for part in (_plan, _progress, _scores, _sites, _test, _spending):
        numbers.update(part(facts))
    return numbers


def count_layout(plan: StudyPlan) -> CountLayout:
    """Return where each evaluation count of the plan lies."""
    return CountLayout(CountKind(plan.task.kind.value), len(plan.task.classes), plan.evaluation.score_bins)


def scored(facts: RunFacts) -> list[Attempt]:
    """Return the attempts that carry evaluation counts, one for each model: the last where a round was repeated."""
    last = {attempt.scored_round: attempt for attempt in facts.attempts if attempt.counts}
    return [last[number] for number in sorted(last)]


def readable(facts: RunFacts, numbers: Figures) -> bool:
    """Tell whether the held-out scores say anything: few patients under much noise give an interval from 0 to 1.

    One class at least must have an interval no wider than ``WIDEST_INTERVAL`` for the last scored model.
    """
    widths = [
        numbers[f"final.auc.{name}.high"] - numbers[f"final.auc.{name}.low"]
        for name in facts.plan.task.classes
        if f"final.auc.{name}" in numbers
    ]
    if facts.plan.task.kind is TaskKind.SEGMENTATION:
        return any(name.startswith("final.dice.") for name in numbers)
    return bool(widths) and min(widths) <= WIDEST_INTERVAL


def tables_of(plan: StudyPlan, attempt: Attempt) -> Mapping[str, Counts]:
    """Return the evaluation tables of an attempt, in patients."""
    return count_layout(plan).tables(np.array(attempt.counts))


def roc_points(histogram: Counts) -> list[tuple[float, float]]:
    """Return (false positive rate, true positive rate) for each bin edge, from strict to lenient, starting at (0, 0).

    Noise can make counts negative: rates are kept within [0, 1] and never fall. Shapes: histogram (2, bins).
    """
    falling = np.cumsum(histogram[:, ::-1], axis=1)
    totals = np.maximum(falling[:, -1:], 1.0)
    rates = np.maximum.accumulate(np.clip(falling / totals, 0, 1), axis=1)
    return [(0.0, 0.0), *((float(false), float(true)) for false, true in rates.T)]


def calibration_points(confidence: Counts) -> list[tuple[float, float, float]]:
    """Return (confidence, share answered right, patients) for each bin with at least one patient (after noise)."""
    counts, points = np.maximum(confidence, 0), []
    bins = counts.shape[1]
    for index, (wrong, right) in enumerate(counts.T):
        if wrong + right >= 1:
            points.append(((index + 0.5) / bins, float(right / (wrong + right)), float(wrong + right)))
    return points


def spent_events(plan: StudyPlan, steps_of_phase: Mapping[int, int], stratum: str) -> Sequence[SampledGaussian]:
    """Return what a patient of a stratum has been through, given the charged attempts of each phase.

    Noise relative to the stratum's clipping norm: sigma for labelled patients, sigma / clip ratio for the others.
    """
    events = []
    for index, steps in steps_of_phase.items():
        phase = plan.phases[index]
        is_labelled = stratum == "labelled"
        rate = phase.labelled_sampling_rate if is_labelled else phase.unlabelled_sampling_rate
        noise = phase.noise_multiplier / (1.0 if is_labelled else phase.unlabelled_clip_ratio)
        if rate > 0 and steps > 0:
            events.append(SampledGaussian(rate, noise, steps * phase.local_steps))
    return events


def curve_attempts(facts: RunFacts) -> list[int]:
    """Return the attempts at which the epsilon curve has a point: first, last, evenly between."""
    numbers = [attempt.number for attempt in facts.attempts]
    if not numbers:
        return []
    places = np.linspace(0, len(numbers) - 1, min(CURVE_POINTS, len(numbers)))
    return [numbers[index] for index in sorted({round(place) for place in places})]


def _plan(facts: RunFacts) -> Figures:
    plan, rules = facts.plan, facts.plan.secure_aggregation
    numbers: Figures = {
        "plan.sites": len(plan.sites),
        "plan.patients": plan.declared_patients,
        "plan.labelled": sum(site.labelled_patients for site in plan.sites),
        "plan.rounds": sum(phase.rounds for phase in plan.phases),
        "plan.minimum_survivors": rules.minimum_survivors,
        "plan.colluders": rules.assumed_colluders,
        "plan.honest": rules.honest_survivors,
        "plan.attempts": sum(phase.maximum_attempts for phase in plan.phases),
    }
    bought = guarantee(plan)
    if bought is not None and plan.privacy.epsilon is not None:
        numbers |= {
            "plan.epsilon": plan.privacy.epsilon,
            "plan.delta": bought.delta,
            "bought.labelled": bought.labelled,
            "bought.unlabelled": bought.unlabelled,
            "bought.validation": bought.validation,
        }
    seen = seen_by(plan)
    if seen is not None:
        numbers |= {f"seen.{observer}": epsilon for observer, epsilon in asdict(seen).items()}
    return numbers


def _progress(facts: RunFacts) -> Figures:
    outcomes = [attempt.outcome for attempt in facts.attempts]
    return {
        "rounds.applied": outcomes.count(Outcome.APPLIED),
        "attempts": len(outcomes),
        "attempts.aborted": outcomes.count(Outcome.ABORTED),
        "seconds": facts.seconds,
    }


def _scores(facts: RunFacts) -> Figures:
    numbers: Figures = {}
    attempts = scored(facts)
    for attempt in attempts:
        found = dict(_score(facts.plan, attempt))
        numbers |= {f"round.{attempt.scored_round}.{name}": value for name, value in found.items()}
        if attempt is attempts[-1]:
            numbers |= {f"final.{name}": value for name, value in found.items()}
    return numbers


def _score(plan: StudyPlan, attempt: Attempt) -> Iterator[tuple[str, float]]:
    """Yield what the counts of one model say; a value that they cannot give (nobody in a class) is left out."""
    tables = tables_of(plan, attempt)
    if "dice" in tables:
        for name, dice in zip(plan.task.classes[1:], mean_dice(dict(tables)), strict=True):
            if math.isfinite(dice):
                yield f"dice.{name}", float(dice)
        return
    for name, histogram in zip(scored_classes(plan), tables["histograms"], strict=True):
        area = area_under_curve(histogram, noise_stddev=attempt.counts_noise_stddev)
        if area is not None:
            reach = NORMAL_95 * area.standard_error + area.binning_error
            yield f"auc.{name}", area.value
            yield f"auc.{name}.low", max(0.0, area.value - reach)
            yield f"auc.{name}.high", min(1.0, area.value + reach)
    if "confusion" in tables:
        for index, name in enumerate(plan.task.classes):
            yield from _sensitivity(name, tables["confusion"][index], index, attempt.counts_noise_stddev)
        error = calibration_error(tables["confidence"])
        if math.isfinite(error):
            yield "calibration_error", error


def _sensitivity(name: str, row: Counts, index: int, noise_stddev: float) -> Iterator[tuple[str, float]]:
    """Yield the share of a class that is answered right, with its interval, from the class's row of the confusion.

    The noise of p = right / n has variance s^2 ((1 - p)^2 + (k - 1) p^2) / n^2, for k counts with noise s each.
    """
    total = float(row.sum())
    if total < 1:
        return
    share = min(max(float(row[index]) / total, 0.0), 1.0)
    spread = (1 - share) ** 2 + (len(row) - 1) * share**2
    yield from _named(
        f"sensitivity.{name}",
        share_estimate(float(row[index]), total, noise_variance=spread * (noise_stddev / total) ** 2),
    )


def _named(name: str, estimate: Estimate) -> Iterator[tuple[str, float]]:
    yield name, estimate.value
    yield f"{name}.low", estimate.low
    yield f"{name}.high", estimate.high


def scored_classes(plan: StudyPlan) -> tuple[str, ...]:
    """Return the classes that have a score histogram (of two exclusive classes only the second)."""
    classes = plan.task.classes
    return classes[1:] if len(classes) == 2 and plan.task.kind.value == "classification" else classes


def _sites(facts: RunFacts) -> Figures:
    numbers: Figures = {}
    for site, known in facts.sites.items():
        numbers[f"site.{site}.rounds"] = sum(site in attempt.participants for attempt in facts.attempts)
        numbers[f"site.{site}.missed"] = sum(site in attempt.absent for attempt in facts.attempts)
        numbers[f"site.{site}.refused"] = sum(site in attempt.refused for attempt in facts.attempts)
        for kind, sent in known.sent.items():
            numbers[f"sent.{site}.{kind}.bytes"] = sent.bytes
            numbers[f"sent.{site}.{kind}.messages"] = sent.messages
        numbers[f"sent.{site}.bytes"] = sum(sent.bytes for sent in known.sent.values())
    return numbers


def _test(facts: RunFacts) -> Figures:
    numbers: Figures = {}
    if facts.test:
        numbers["test.images"] = facts.test.images
        numbers |= _public("test", facts.test)
    for number, score in facts.test_by_round:
        numbers |= _public(f"test_round.{number}", score)
    for row in facts.compared:
        numbers |= dict(_named(f"compared.{row.key}", row.estimate))
    return numbers


def _public(name: str, score: PublicScore) -> Figures:
    """Return a public score and its shares, each with its interval."""
    numbers = dict(_named(name, score.estimate))
    for label, share in score.shares.items():
        numbers |= dict(_named(f"{name}.sensitivity.{label}", share))
    for structure, dice in score.dice.items():
        numbers |= dict(_named(f"{name}.dice.{structure}", dice))
    for structure, measures in score.structures.items():
        found = {key: value for key, value in asdict(measures).items() if value is not None}
        numbers |= {f"{name}.structure.{structure}.{key}": float(value) for key, value in found.items()}
    for place, picture in enumerate(score.pictures):
        numbers[f"{name}.picture.{place}"] = picture.dice
    return numbers


def _spending(facts: RunFacts) -> Figures:
    """Epsilon so far (the site that was charged most), and of each site at the end; by stratum.

    The curve uses the coarse upper bound, the ends the accountant of record.
    """
    delta, numbers = facts.plan.privacy.delta, Figures()
    if delta is None:
        return numbers
    for stratum in ("labelled", "unlabelled"):
        for number in curve_attempts(facts):
            steps_of = {site: _steps(facts, site, number) for site in facts.sites}
            steps = max(steps_of.values(), key=lambda taken: sum(taken.values()))
            numbers[f"spent_by.{number}.{stratum}"] = _spent(facts.plan, steps, stratum)
            for site in facts.sites if len(facts.sites) <= MOST_COURSES else ():
                numbers[f"spent_at.{site}.{number}.{stratum}"] = _spent(facts.plan, steps_of[site], stratum)
        for site in facts.sites:
            steps = _steps(facts, site, max((attempt.number for attempt in facts.attempts), default=0))
            numbers[f"spent.{site}.{stratum}"] = epsilon(spent_events(facts.plan, steps, stratum), delta)
    return numbers


def _spent(plan: StudyPlan, steps: Mapping[int, int], stratum: str) -> float:
    """Return an upper bound of epsilon after the charged attempts; composing it is cheap and remembered."""
    return epsilon(spent_events(plan, steps, stratum), plan.privacy.delta or 0.0, interval=COARSE_INTERVAL)


def _steps(facts: RunFacts, site: str, until: int) -> dict[int, int]:
    """Count the attempts of each phase, up to ``until``, that a site's ledger counts (also the closing one)."""
    steps: dict[int, int] = {}
    for attempt in facts.attempts:
        if site in attempt.charged and attempt.number <= until:
            steps[attempt.phase] = steps.get(attempt.phase, 0) + 1
    return steps
