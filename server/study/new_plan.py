"""The text of a new study's plan: of a recipe, computed whole, or the plain one that people change by hand."""

from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.trust.canonical import encode_base64
from common.trust.identity import public_bytes
from common.trust.roster import Roster
from server.drafting.plan_text import plan_toml
from server.drafting.planning import Planned, plan_for
from server.drafting.recipes import Question, Recipe
from server.study.plan_template import declared_counts, delta_for, new_plan_text

PLAIN_ROUNDS = 100


@dataclass(frozen=True)
class Wanted:
    """What a new plan is to be. ``question``: None for the plain recipe, which has ``rounds`` instead (None: 100)."""

    recipe: Recipe
    question: Question | None
    epsilon: float
    rounds: int | None = None


@dataclass(frozen=True)
class NewPlan:
    """``text``: TOML with comments. ``planned``: how it came to be; None for the plain recipe."""

    text: str
    planned: Planned | None


def new_plan(name: str, roster: Roster, patients: list[str], *, order_key: Ed25519PublicKey, wanted: Wanted) -> NewPlan:
    """Return the plan for the sites of ``roster`` with their declared counts, SITE=LABELLED,UNLABELLED each.

    Raises: PlanInvalidError for counts or words that make no plan; what building and checking a plan raises.
    """
    if wanted.question is None:
        rounds, epsilon = wanted.rounds or PLAIN_ROUNDS, wanted.epsilon
        text = new_plan_text(name, roster, patients, order_key=order_key, epsilon=epsilon, rounds=rounds)
        return NewPlan(text, None)
    counts = declared_counts(patients, roster)
    study = {
        "name": name,
        "title": name,
        "roster_digest": roster.digest(),
        "order_key": encode_base64(public_bytes(order_key)),
    }
    delta = delta_for(sum(map(sum, counts.values())))
    planned = plan_for(wanted.recipe, replace(wanted.question, delta=delta), counts, study)
    return NewPlan(_head(planned) + plan_toml(planned.plan, COMMENTS), planned)


def _head(planned: Planned) -> str:
    scores = "Nobody is held out: with these counts a score would have said too little, so every label trains."
    if planned.standard_error is not None:
        scores = (
            f"A fifth of the labelled patients is held out and scores the last model once, to about "
            f"+-{2 * planned.standard_error:.2f}."
        )
    return f"""\
# A study plan of Fedward, recipe {planned.recipe}. Everything here changes the model or the guarantee; it is hashed,
# signed and approved. {scores}
# After a change: `fedward-server plan fix` of this file computes anew what follows from what you changed, and says it;
# then `fedward-server plan check --draft`.
"""


COMMENTS = {
    "study.title": "one line for the staff of the hospitals",
    "study.contact": "whom they may ask",
    "study.order_key": "signs the rounds; an online key, not the coordinator's",
    "task.classes": "the first is the normal (or background) class, unless normal_class names it",
    "image.size_px": "height, width; of volumes depth, height, width",
    "image.intensity": "percentiles of the image, ct_window (window_hu), suv_range (range_suv), voi_lut or luminance",
    "network.initialisation": "digest of public start weights (images that belong to nobody), or seeded",
    "network.encoder.outputs": "of the public encoder, joined in this order",
    "privacy.epsilon": "promised to each patient over the whole study",
    "privacy.noise": "each hospital adds its share; local trusts nobody and costs accuracy",
    "secure_aggregation.assumed_colluders": "hospitals that may work together with the coordinator",
    "secure_aggregation.threshold": "2 threshold > cohort_size + colluders",
    "secure_aggregation.minimum_survivors": "fewer answers make no sum",
    "secure_aggregation.coordinate_range": "of a hospital's sum: computed; a larger one is rounded more coarsely",
    "timing.reply_slot_s": "answers leave at multiples of it: what the largest sample takes on one thread; computed",
    "phases.maximum_attempts": "the noise is computed for so many: lost rounds do not end the study",
    "phases.layout_hash": "computed from the network",
    "phases.noise_multiplier": "computed: buys the promised epsilon for maximum_attempts",
    "phases.clipping_norm": "bounds what one patient contributes",
}
