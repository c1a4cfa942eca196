"""From a draft to a whole study plan: sites, thresholds, layout hashes, and the noise that buys the promise."""

from collections.abc import Mapping
from typing import Any, Final

from common.encoders.card import EncoderCard
from common.networks.settings import RESIDUAL, RESIDUAL_LEVELS
from common.networks.shipped_weights import available
from common.plan.combinations import check_combinations
from common.plan.encoder_fit import check_encoder_fits
from common.plan.errors import PlanInvalidError
from common.plan.head_steps import steps_for
from common.plan.phases import Method, Phase
from common.plan.plan import FORMAT, StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.reading import parse_plan
from common.plan.task import SEEDED
from server.drafting.completing import completed
from server.drafting.draft import MOST_ATTEMPTS, DraftPhase, StudyDraft

SPARE_ATTEMPTS = 1.1
SPARE_MORE = 2
MOST_NOISE = 2000.0
FILLED_BY: Final = {RESIDUAL_LEVELS: RESIDUAL}  # start weights of one network that fit the encoder of another
NOISE_PRECISION = 2e-4  # relative; the noise found is rounded up


def build_plan(
    draft: StudyDraft,
    study: Mapping[str, str],
    counts: Mapping[str, tuple[int, int]],
    *,
    card: EncoderCard | None = None,
    source: str,
) -> StudyPlan:
    """Return the plan of a draft for sites with declared counts (labelled, unlabelled patients).

    ``study``: name, title, roster_digest and order_key, as a plan has them. ``card``: of the draft's encoder, where it
    has one. ``source``: what sentences about the plan begin with.
    Raises: what reading and checking a plan raises (the sentence names the place).
    """
    document = _document(draft, counts, source)
    _name_encoder(document["network"], card, source)
    document["study"] = dict(study)
    plan = _with_rounds(draft, parse_plan(document, source), source)
    check_combinations(plan, source)
    if card is not None:
        check_encoder_fits(plan, card, source)
    return completed(plan, draft.phases, source)


def default_thresholds(sites: int) -> dict[str, int]:
    """Return thresholds for a number of sites: one colluder from four sites on, a quarter may drop out."""
    colluders = 1 if sites >= 4 else 0
    return {
        "cohort_size": sites,
        "assumed_colluders": colluders,
        "threshold": (sites + colluders) // 2 + 1,
        "minimum_survivors": max(3, sites - sites // 4),
    }


def _document(draft: StudyDraft, counts: Mapping[str, tuple[int, int]], source: str) -> dict[str, Any]:
    sites = len(counts)
    document = draft.model_dump(mode="json", exclude={"phases": {"__all__": {"noise_ratio"}}})
    document = {name: part for name, part in document.items() if part is not None}
    document["format"] = FORMAT
    document["network"]["initialisation"] = _initialisation(draft, source)
    document["sites"] = [
        {"name": name, "labelled_patients": labelled, "unlabelled_patients": unlabelled}
        for name, (labelled, unlabelled) in sorted(counts.items())
    ]
    rules = document.setdefault("secure_aggregation", default_thresholds(sites))
    if draft.secure_aggregation and "coordinate_range" not in draft.secure_aggregation.model_fields_set:
        del rules["coordinate_range"]  # derived, not the form's
    for phase in document["phases"]:
        if phase["maximum_attempts"] == MOST_ATTEMPTS:
            phase["maximum_attempts"] = int(phase["rounds"] * SPARE_ATTEMPTS) + SPARE_MORE
        if draft.privacy.noise is NoisePlacement.NONE:
            phase["noise_multiplier"] = 0.0
    return document


def _name_encoder(network: dict[str, Any], card: EncoderCard | None, source: str) -> None:
    """Replace the draft's words about its encoder by what a plan says: digests, outputs, lengths."""
    draft = network.pop("encoder")
    if draft is None:
        return
    if card is None:
        raise PlanInvalidError(f"{source}: network.encoder: nobody gave its card; give it with --encoder and --card")
    outputs = draft["outputs"] or [output.name for output in card.outputs if output.kind == "vector"]
    named = {"card": card.digest(), "file": card.file, "outputs": outputs, "features": card.features_of(outputs)}
    network["encoder"] = named | {"views": draft["views"]}


def _initialisation(draft: StudyDraft, source: str) -> str:
    """Return the digest of the shipped start weights that fit the network."""
    network, dimensions = draft.network, draft.task.dimensions
    if network.initialisation == SEEDED or network.encoder is not None:
        return SEEDED
    channels = draft.image.channels
    wanted = (FILLED_BY.get(network.name, network.name), dimensions, network.width)
    for entry in available() if channels == 1 else ():  # all that is shipped looks at grey images
        if (entry.network, entry.dimensions, entry.width) == wanted:
            return entry.digest
    shipped = ", ".join(f"{entry.network} {entry.dimensions}-D width {entry.width}" for entry in available())
    raise PlanInvalidError(
        f"{source}: network: no public start weights for {network.name} {dimensions}-D width {network.width} "
        f"with {channels} channels; shipped (1 channel): "
        f'{shipped}; or set initialisation = "seeded"'
    )


def _with_rounds(draft: StudyDraft, plan: StudyPlan, source: str) -> StudyPlan:
    """Fill in the rounds of phases whose draft has none: of a private head by the rule of public numbers, ridge 1."""
    phases = []
    for phase, drafted in zip(plan.phases, draft.phases, strict=True):
        given = "rounds" in drafted.model_fields_set
        phases.append(phase if given else _with_derived_rounds(plan, phase, drafted, source))
    return plan.model_copy(update={"phases": tuple(phases)})


def _with_derived_rounds(plan: StudyPlan, phase: Phase, draft: DraftPhase, source: str) -> Phase:
    where = f"{source}: phase {phase.name} has no rounds"
    rounds = 1 if phase.method is Method.RIDGE else steps_for(plan, phase)
    if rounds is None:
        raise PlanInvalidError(
            f"{where}; they follow from public numbers only for method = ridge, and for a private supervised head on "
            "normed features: set rounds"
        )
    if draft.maximum_attempts < MOST_ATTEMPTS:
        raise PlanInvalidError(f"{where}, but maximum_attempts = {draft.maximum_attempts}: set both, or neither")
    attempts = rounds + max(1, round(rounds * (SPARE_ATTEMPTS - 1)))
    return phase.model_copy(update={"rounds": rounds, "maximum_attempts": attempts})
