"""The part of the page about who could learn what: one epsilon for each kind of observer, and where the noise is."""

import math

from common.plan.privacy import NoisePlacement
from simulation.report.facts import RunFacts
from simulation.report.figures import Figures
from simulation.report.words import figure, section, table

PLACEMENTS = {
    NoisePlacement.DISTRIBUTED: (
        "shared out: each hospital adds a part, and every sum that can be opened holds all of it from honest hospitals"
    ),
    NoisePlacement.LOCAL: "added in full by each hospital, before anything leaves it",
    NoisePlacement.NONE: "not added at all",
}


def observers(facts: RunFacts, numbers: Figures) -> str:
    """Print what the plan guarantees towards each kind of observer, for all its attempts."""
    if "seen.guarantee" not in numbers:
        return ""
    is_local = facts.plan.privacy.noise is NoisePlacement.LOCAL
    rows = _anybody(numbers) if is_local else _each(facts, numbers)
    attempts = figure(numbers, "plan.attempts", "{:.0f}")
    head = ["who looks", "what they know of the noise", "epsilon at most"]
    return section(
        "observers",
        "Who could learn how much about one patient",
        f"<p>The noise is {PLACEMENTS[facts.plan.privacy.noise]}. For each kind of observer: how much everything that "
        f"leaves the hospitals in all {attempts} attempts that the plan allows can tell them about one patient of "
        "another hospital.</p>",
        table(head, rows, numeric_from=2),
        f'<p class="small">{_ground(is_local)} A patient with scans in two hospitals spends in both: their figures '
        "add up.</p>",
    )


def _each(facts: RunFacts, numbers: Figures) -> list[list[str]]:
    colluders = facts.plan.secure_aggregation.assumed_colluders
    others = f"{colluders} other hospital" + ("s" if colluders != 1 else "")
    rows = [
        ["somebody outside, or the coordinator alone", "nothing", _shown(numbers, "outsider")],
        [
            f"<b>the coordinator together with {colluders} of the hospitals: the promise</b>",
            "the parts of those hospitals",
            f"<b>{_shown(numbers, 'guarantee')}</b>",
        ],
        ["one hospital that takes part", "its own part", _shown(numbers, "hospital")],
    ]
    all_others = [
        "the coordinator, if every other hospital belonged to it",
        "all parts but that of the patient's own hospital",
        _shown(numbers, "all_others"),
    ]
    if colluders == 0:
        rows[1][0], rows[1][1] = "<b>the coordinator, and no hospital with it: the promise</b>", "nothing"
        return [*rows, all_others]
    together = [
        f"one hospital together with {others}: more than the plan assumes",
        "their own parts",
        _shown(numbers, "hospital_with_colluders"),
    ]
    return [*rows, together, all_others]


def _anybody(numbers: Figures) -> list[list[str]]:
    return [["<b>anybody outside the patient's hospital</b>", "nothing that helps", _shown(numbers, "guarantee")]]


def _shown(numbers: Figures, observer: str) -> str:
    """Return the figure; where all the noise can be subtracted there is no bound."""
    is_bounded = math.isfinite(numbers[f"seen.{observer}"])
    return figure(numbers, f"seen.{observer}", "{:.2f}" if is_bounded else "no bound")


def _ground(is_local: bool) -> str:
    if is_local:
        return "This holds whatever the coordinator or any other hospital does."
    return (
        "This rests on the encryption holding (it is computational), and on no more hospitals helping the coordinator "
        "than the row says."
    )
