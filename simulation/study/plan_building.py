"""From a draft to a whole study plan: sites, thresholds, layout hashes, and the noise that buys the promise."""

import json
from collections.abc import Mapping
from typing import Any

from common.encoders.card import EncoderCard
from common.networks.shipped_weights import available
from common.plan.combinations import check_combinations
from common.plan.encoder_fit import check_encoder_fits
from common.plan.errors import PlanWeakPrivacyError
from common.plan.fitting import check_fit, derived_norm, derived_range, says_range
from common.plan.guarantee import check_guarantee, labelled_events, unlabelled_events
from common.plan.head_steps import steps_for
from common.plan.phases import Method, Phase
from common.plan.plan import FORMAT, StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.reading import parse_plan
from common.plan.reply_slot import check_reply_slot, default_reply_slot_s
from common.plan.selection import check_selection
from common.plan.settings_read import check_settings_are_read
from common.plan.shape import phase_layouts
from common.plan.task import SEEDED
from common.privacy.accounting import COARSE_INTERVAL, LEAST_NOISE_MULTIPLIER, SampledGaussian, epsilon
from simulation.errors import ScenarioInvalidError
from simulation.study.scenario import MOST_ATTEMPTS, NOT_SET, DraftPhase, Scenario

SPARE_ATTEMPTS = 1.1
SPARE_MORE = 2
SOURCE = "the scenario's study"
MOST_NOISE = 2000.0
NOISE_PRECISION = 2e-4  # relative; the noise found is rounded up


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
    Raises: ScenarioInvalidError, and what reading and checking a plan raises (the sentence names the place).
    """
    document = _document(scenario, counts)
    _name_encoder(document["network"], card)
    document["study"] = {
        "name": scenario.name,
        "title": scenario.title,
        "roster_digest": roster_digest,
        "order_key": order_key,
    }
    draft = _with_rounds(scenario, parse_plan(document, SOURCE))
    check_combinations(draft, SOURCE)
    if card is not None:
        check_encoder_fits(draft, card, SOURCE)
    plan = _with_range(_with_norms(scenario, _with_reply_slot(_with_noise(scenario, _with_layouts(draft)))))
    check_settings_are_read(plan, SOURCE)
    check_reply_slot(plan, SOURCE)
    check_guarantee(plan, SOURCE)
    if plan.aggregation.heeds_scores:
        check_selection(plan, SOURCE)
    check_fit(plan, phase_layouts(plan), SOURCE)
    return plan


def declared(patients: int) -> int:
    """Round a count as a hospital does when it joins: to two digits, so that no single patient shows."""
    step: int = max(1, 10 ** (len(str(patients)) - 2))
    return round(patients / step) * step


def default_thresholds(sites: int) -> dict[str, int]:
    """Return thresholds for a number of sites: one colluder from four sites on, a quarter may drop out."""
    colluders = 1 if sites >= 4 else 0
    return {
        "cohort_size": sites,
        "assumed_colluders": colluders,
        "threshold": (sites + colluders) // 2 + 1,
        "minimum_survivors": max(3, sites - sites // 4),
    }


def plan_toml(plan: StudyPlan) -> str:
    """Return a plan as TOML that reads back as the same plan."""
    return "\n".join(_toml_lines(plan.model_dump(mode="json"), "")) + "\n"


def _document(scenario: Scenario, counts: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    draft, sites = scenario.study, len(counts)
    document = draft.model_dump(mode="json", exclude={"phases": {"__all__": {"noise_ratio"}}})
    document = {name: part for name, part in document.items() if part is not None}
    document["format"] = FORMAT
    document["network"]["initialisation"] = _initialisation(scenario)
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


def _name_encoder(network: dict[str, Any], card: EncoderCard | None) -> None:
    """Replace the scenario's words about its encoder by what a plan says: digests, outputs, lengths."""
    draft = network.pop("encoder")
    if draft is None:
        return
    if card is None:
        raise ScenarioInvalidError("study.network.encoder: nobody gave its card; give it with --encoder and --card")
    outputs = draft["outputs"] or [output.name for output in card.outputs if output.kind == "vector"]
    named = {"card": card.digest(), "file": card.file, "outputs": outputs, "features": card.features_of(outputs)}
    network["encoder"] = named | {"views": draft["views"]}


def _initialisation(scenario: Scenario) -> str:
    """Return the digest of the shipped start weights that fit the network."""
    network, dimensions = scenario.study.network, scenario.study.task.dimensions
    if network.initialisation == SEEDED or network.encoder is not None:
        return SEEDED
    channels = scenario.study.image.channels
    wanted = (network.name, dimensions, network.width)
    for entry in available() if channels == 1 else ():  # all that is shipped looks at grey images
        if (entry.network, entry.dimensions, entry.width) == wanted:
            return entry.digest
    shipped = ", ".join(f"{entry.network} {entry.dimensions}-D width {entry.width}" for entry in available())
    raise ScenarioInvalidError(
        f"study.network: no public start weights for {network.name} {dimensions}-D width {network.width} "
        f"with {channels} channels; shipped (1 channel): "
        f'{shipped}; or set initialisation = "seeded"'
    )


def _with_rounds(scenario: Scenario, plan: StudyPlan) -> StudyPlan:
    """Fill in the rounds of phases whose draft has none: of a private head by the rule of public numbers, ridge 1."""
    phases = []
    for phase, draft in zip(plan.phases, scenario.study.phases, strict=True):
        given = "rounds" in draft.model_fields_set
        phases.append(phase if given else _with_derived_rounds(plan, phase, draft))
    return plan.model_copy(update={"phases": tuple(phases)})


def _with_derived_rounds(plan: StudyPlan, phase: Phase, draft: DraftPhase) -> Phase:
    where = f"{SOURCE}: phase {phase.name} has no rounds"
    rounds = 1 if phase.method is Method.RIDGE else steps_for(plan, phase)
    if rounds is None:
        raise ScenarioInvalidError(
            f"{where}; they follow from public numbers only for method = ridge, and for a private supervised head on "
            "normed features: set rounds"
        )
    if draft.maximum_attempts < MOST_ATTEMPTS:
        raise ScenarioInvalidError(f"{where}, but maximum_attempts = {draft.maximum_attempts}: set both, or neither")
    attempts = rounds + max(1, round(rounds * (SPARE_ATTEMPTS - 1)))
    return phase.model_copy(update={"rounds": rounds, "maximum_attempts": attempts})


def _with_layouts(plan: StudyPlan) -> StudyPlan:
    """Fill in the layout hashes that the draft left out."""
    phases = tuple(
        phase.model_copy(update={"layout_hash": layout.layout_hash}) if phase.layout_hash == NOT_SET else phase
        for phase, layout in zip(plan.phases, phase_layouts(plan), strict=True)
    )
    return plan.model_copy(update={"phases": phases})


def _with_noise(scenario: Scenario, plan: StudyPlan) -> StudyPlan:
    """Compute the noise of the phases that do not name it: one factor for all, found by bisection."""
    drafts = scenario.study.phases
    open_phases = [index for index, draft in enumerate(drafts) if "noise_multiplier" not in draft.model_fields_set]
    if plan.privacy.epsilon is None or not open_phases:
        return plan

    def with_factor(factor: float) -> StudyPlan:
        phases = [
            phase.model_copy(update={"noise_multiplier": round(factor * drafts[index].noise_ratio, 4)})
            if index in open_phases
            else phase
            for index, phase in enumerate(plan.phases)
        ]
        return plan.model_copy(update={"phases": tuple(phases)})

    low, high = 0.2, 1.0
    while not _keeps_promise(with_factor(high)):
        low, high = high, 2 * high
        if high > MOST_NOISE:
            raise PlanWeakPrivacyError(f"{SOURCE}: no noise buys epsilon {plan.privacy.epsilon:g}; sample less often")
    while high - low > NOISE_PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _keeps_promise(with_factor(middle)) else (middle, high)
    return with_factor(high * (1 + NOISE_PRECISION))


def _with_norms(scenario: Scenario, plan: StudyPlan) -> StudyPlan:
    """Derive the norm of a ridge phase's vectors where the scenario does not name it."""
    if plan.privacy.noise is NoisePlacement.NONE:
        return plan
    phases = [
        phase.model_copy(update={"clipping_norm": derived_norm(plan, phase)})
        if phase.method is Method.RIDGE and "clipping_norm" not in draft.model_fields_set
        else phase
        for phase, draft in zip(plan.phases, scenario.study.phases, strict=True)
    ]
    return plan.model_copy(update={"phases": tuple(phases)})


def _with_range(plan: StudyPlan) -> StudyPlan:
    """Derive the range of a hospital's sum where the scenario does not name it."""
    if says_range(plan):
        return plan
    rules = plan.secure_aggregation.model_copy(update={"coordinate_range": derived_range(plan)})
    return plan.model_copy(update={"secure_aggregation": rules})


def _with_reply_slot(plan: StudyPlan) -> StudyPlan:
    """Fill in the reply slot of a private plan whose draft has none; simulated hospitals do not wait for its end."""
    if plan.privacy.noise is NoisePlacement.NONE or plan.timing.reply_slot_s > 0:
        return plan
    slot_s, timing = default_reply_slot_s(plan), plan.timing
    changed = {"reply_slot_s": slot_s, "training_timeout_s": max(timing.training_timeout_s, 2 * slot_s)}
    return plan.model_copy(update={"timing": timing.model_copy(update=changed)})


def _keeps_promise(plan: StudyPlan) -> bool:
    """Whether both strata stay within the promise, by the fast upper bound."""
    privacy = plan.privacy
    if privacy.epsilon is None or privacy.delta is None:
        return True
    strata: list[list[SampledGaussian]] = [labelled_events(plan), unlabelled_events(plan)]
    if any(event.noise_multiplier < LEAST_NOISE_MULTIPLIER for events in strata for event in events):
        return False
    return all(epsilon(events, privacy.delta, interval=COARSE_INTERVAL) <= privacy.epsilon for events in strata)


def _toml_lines(values: Mapping[str, Any], place: str) -> list[str]:
    """Return the lines of one table: plain values first, then tables, then lists of tables."""
    known = {key: value for key, value in values.items() if value is not None}
    lines = [f"{key} = {json.dumps(value)}" for key, value in known.items() if not _is_table(value)]
    for key, value in known.items():
        name = f"{place}{key}"
        if isinstance(value, dict):
            lines += ["", f"[{name}]", *_toml_lines(value, f"{name}.")]
        elif _is_table(value):
            for row in value:
                lines += ["", f"[[{name}]]", *_toml_lines(row, f"{name}.")]
    return lines


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
