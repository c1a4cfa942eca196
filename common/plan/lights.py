"""Can a plan work at all? Signal to noise, exactness of its scores, memory and time: one line each, with a colour.

    R = |noise| / |signal| of a whole phase = sigma sqrt(d) / (patients a round sqrt(rounds))

Rounds average noise away, and a budget divided among them makes as much more of it: R is that of one release with the
whole budget. Of private heads and ridge, over 18 cells of docs/results.md on three sets of features, the AUC lost
against the same without noise was .00 to .05 at R up to .5, .03 to .08 up to 1, .05 to .15 up to 1.2, and .21 at 2.2.
A whole network from drawn weights agrees far less on where to go: at R = .64 it lost .23.
"""

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from common.plan.fitting import PhaseFit
from common.plan.guarantee import noise_to_signal
from common.plan.machines import stated_machines
from common.plan.phases import Method, Phase, Trainable
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.selection import expected_standard_error
from common.plan.task import SEEDED

CLEAR_SIGNAL, LOST_SIGNAL = 0.5, 2.0
CLEAR_OF_NETWORK, LOST_FROM_DRAWN_WEIGHTS = 0.1, 0.5
EXACT_SCORE, EMPTY_SCORE = 0.05, 0.1
DAY_S: Final = 86_400.0
# The server smooths the sum of label maps, and standardised features may be off by a factor: no evidence of a limit.
WITHOUT_LIMIT: Final = (Method.PRIOR, Method.STANDARDISE)


class Colour(StrEnum):
    """``red``: the plan cannot work so; whoever signs it nevertheless says why."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True)
class Light:
    """One line: what was looked at, its figure in words, and what that means for a person."""

    what: str
    colour: Colour
    figure: str
    meaning: str


def lights(plan: StudyPlan, fits: list[PhaseFit]) -> list[Light]:
    """Return the lines of a checked plan, phases first."""
    learning = [_learning(plan, phase, fit) for phase, fit in zip(plan.phases, fits, strict=True)]
    return [*filter(None, learning), _score(plan), *_machines(plan)]


def red(found: list[dict[str, Any]]) -> list[str]:
    """Return the sentences of red lights, as ``as_values`` has them."""
    return [f"{each['what']}: {each['figure']}; {each['meaning']}" for each in found if each["colour"] == Colour.RED]


def as_values(found: list[Light]) -> list[dict[str, Any]]:
    """Return lights as plain values, for JSON and pages."""
    return [asdict(each) | {"colour": each.colour.value} for each in found]


def _learning(plan: StudyPlan, phase: Phase, fit: PhaseFit) -> Light | None:
    """Return R of a phase; None without noise."""
    if plan.privacy.noise is NoisePlacement.NONE:
        return None
    ratio = noise_to_signal(plan, phase, fit.num_parameters) / math.sqrt(phase.rounds * phase.local_steps)
    figure = f"noise is {ratio:.2f} times the signal, all rounds together"
    what = f"phase {phase.name}"
    if phase.method in WITHOUT_LIMIT:
        colour = Colour.GREEN if ratio <= LOST_SIGNAL else Colour.YELLOW
        return Light(what, colour, figure, "it prepares what later phases learn" if ratio <= LOST_SIGNAL else _REMEDY)
    is_head = phase.method is Method.RIDGE or phase.trainable is Trainable.HEAD
    drawn = not is_head and plan.network.initialisation == SEEDED
    if ratio > (LOST_FROM_DRAWN_WEIGHTS if drawn else LOST_SIGNAL):
        return Light(what, Colour.RED, figure, f"nearly nothing is learnt; {_REMEDY}")
    if ratio <= (CLEAR_SIGNAL if is_head else CLEAR_OF_NETWORK):
        return Light(
            what, Colour.GREEN, figure, "noise costs an AUC of .05 at most" if is_head else "learning is heard"
        )
    cost = f"noise costs an AUC of about {ratio / 10:.2f}" if is_head else "noise is a large part of what is learnt"
    return Light(what, Colour.YELLOW, figure, f"{cost}; {_REMEDY}")


_REMEDY: Final = "more patients, fewer parameters (a head, ridge, a public encoder's projection) or a larger epsilon"


def _score(plan: StudyPlan) -> Light:
    if not plan.evaluation.held_out:
        return Light("score", Colour.GREEN, "none is made", "every label trains; judge the model on scans outside")
    error = expected_standard_error(plan)
    figure = f"standard error {error:.2f}" if math.isfinite(error) else "nobody is held out"
    if error <= EXACT_SCORE:
        return Light("score", Colour.GREEN, figure, "scores can be compared")
    colour = Colour.YELLOW if error <= EMPTY_SCORE else Colour.RED
    says = "a score says little" if colour is Colour.YELLOW else "a score says nothing, and its patients do not train"
    remedy = "set evaluation.held_out = false, make fewer scores (every_rounds) or raise evaluation.epsilon"
    return Light("score", colour, figure, f"{says}; {remedy}")


def _machines(plan: StudyPlan) -> list[Light]:
    """Return whether a hospital's machine carries it: the largest of those that are stated decides."""
    found = stated_machines(plan)
    fitting = [each for each in found if each["fits"]]
    if not fitting:
        least = f"{found[-1]['least_mb']} MB for one patient at a time"
        return [Light("memory", Colour.RED, least, f"too large for: {found[-1]['machine']}; smaller images or patches")]
    machine = fitting[0]
    memory = Light(
        "memory",
        Colour.GREEN if machine is found[0] else Colour.YELLOW,
        f"{machine['least_mb']} MB for one patient at a time",
        f"fits: {machine['machine']}" + ("" if machine is found[0] else f"; too large for: {found[0]['machine']}"),
    )
    whole_s = machine["round_s"] * sum(phase.rounds for phase in plan.phases)
    days = f"about {whole_s / DAY_S:.1f} days" if whole_s > DAY_S else f"about {max(1, round(whole_s / 60))} min"
    slow = Colour.YELLOW if whole_s > DAY_S else Colour.GREEN
    return [memory, Light("time", slow, f"{days} of computing", f"{machine['machine']}, all rounds of all phases")]
