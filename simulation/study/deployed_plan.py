"""From a simulated study to one for real hospitals: what is learnt and how is the scenario's, all else the draft's.

    scenario    task, image, network, phases, aggregation, evaluation
    draft       name, title, contact, keys, sites and their counts, promise (epsilon, delta), thresholds, deadlines
    computed    noise, layouts, range of a sum, reply slot

The draft is what ``fedward-server study new`` wrote for the hospitals of a federation.
"""

from common.encoders.card import EncoderCard
from common.plan.aggregation import SecureAggregation, Timing
from common.plan.plan import StudyPlan
from simulation.errors import ScenarioInvalidError
from simulation.study.plan_building import build_plan
from simulation.study.scenario import Scenario


def deployed_plan(scenario: Scenario, draft: StudyPlan, card: EncoderCard | None) -> StudyPlan:
    """Return the plan of ``scenario`` for the hospitals of ``draft``. ``card``: of its encoder, where it has one.

    Raises: ScenarioInvalidError where one promises privacy and the other none; whatever ``build_plan`` raises.
    """
    simulated, real = scenario.study.privacy, draft.privacy
    if simulated.noise is not real.noise:
        raise ScenarioInvalidError(
            f"study.privacy.noise is {simulated.noise}, the draft's is {real.noise}: what was simulated says nothing "
            "about the other; take a scenario with that noise, or change the draft"
        )
    rules = draft.secure_aggregation.model_dump(mode="json", exclude={"coordinate_range"})
    waits = draft.timing.model_dump(exclude={"reply_slot_s"})
    longest_s = max(draft.timing.training_timeout_s, scenario.study.timing.training_timeout_s)
    study = scenario.study.model_copy(
        update={
            "privacy": real,
            "secure_aggregation": SecureAggregation.model_validate(rules),
            "timing": Timing.model_validate(waits | {"training_timeout_s": longest_s}),
        }
    )
    counts = {site.name: (site.labelled_patients, site.unlabelled_patients) for site in draft.sites}
    built = build_plan(
        scenario.model_copy(update={"study": study}),
        counts,
        roster_digest=draft.study.roster_digest,
        order_key=draft.study.order_key,
        card=card,
    )
    return built.model_copy(update={"study": draft.study, "sites": draft.sites})
