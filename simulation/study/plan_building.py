"""The plan of a scenario: its study is a draft (``server.drafting``), its hospitals bring names and counts."""

from collections.abc import Mapping

from common.encoders.card import EncoderCard
from common.plan.plan import StudyPlan
from server.drafting import building
from simulation.study.scenario import Scenario

SOURCE = "the scenario's study"


def build_plan(
    scenario: Scenario,
    counts: Mapping[str, tuple[int, int]],
    *,
    roster_digest: str,
    order_key: str,
    card: EncoderCard | None = None,
) -> StudyPlan:
    """Return the plan of a scenario for sites with declared counts (labelled, unlabelled patients).

    ``card``: of the scenario's encoder, where it has one.
    Raises: what reading and checking a plan raises (the sentence names the place).
    """
    study = {
        "name": scenario.name,
        "title": scenario.title,
        "roster_digest": roster_digest,
        "order_key": order_key,
    }
    return building.build_plan(scenario.study, study, counts, card=card, source=SOURCE)


def declared(patients: int) -> int:
    """Round a count as a hospital does when it joins: to two digits, so that no single patient shows."""
    step: int = max(1, 10 ** (len(str(patients)) - 2))
    return round(patients / step) * step
