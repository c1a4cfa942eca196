"""What a person should know of a plan before signing or approving it: plain facts, what leaves a site, warnings."""

import math
from dataclasses import asdict
from typing import Any

from common.networks.settings import RESIDUAL, RESIDUAL_LEVELS, SMALL_CNN, UNET
from common.plan.fitting import SUMS_OF_MOMENTS, PhaseFit, derived_range, largest_sum, says_range
from common.plan.guarantee import Guarantee, evaluations, noise_to_signal, seen_by
from common.plan.head_steps import steps_for
from common.plan.lights import as_values, lights
from common.plan.machines import stated_machines
from common.plan.phases import Method, Phase
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.selection import MOST_STANDARD_ERROR, expected_standard_error
from common.plan.task import SEEDED, TaskKind

WITH_START_WEIGHTS = (SMALL_CNN, RESIDUAL, RESIDUAL_LEVELS, UNET)  # of which some are shipped
FAR_FROM_RULE = 2.5  # times more or fewer rounds than the rule: within, no draw tells them apart

MODELS = {
    "last_average": "the average of the last rounds' models",
    "last": "the last round's model",
    "best_noised": "the model of the last phase with the best noised score",
}

WHAT_A_PATIENT_ADDS = {
    Method.STANDARDISE: "means and squares of features",
    Method.RIDGE: "products of features with one another and with labels",
    Method.PRIOR: "label maps",
}  # elsewhere: a gradient
LEAVES_A_SITE = {
    "protocol messages": "public keys, sealed key shares, signatures, fixed codes",
    "never": "scans, labels, patient counts, losses, an unmasked update, log lines, file names",
}


def summarise(plan: StudyPlan, bought: Guarantee | None, fits: list[PhaseFit]) -> dict[str, Any]:
    """Return the facts of a checked plan as plain values, in the order a person reads them (also the JSON form)."""
    rules = plan.secure_aggregation
    return {
        "study": plan.study.name,
        "title": plan.study.title,
        "contact": plan.study.contact,
        "digest": plan.digest(),
        "task": {
            "kind": plan.task.kind.value,
            "classes": list(plan.task.classes),
            "normal_class": _normal_class(plan),
            "modalities": [modality.value for modality in plan.task.modalities],
            "input_px": list(plan.image.size_px),
            "patch_px": list(plan.image.patch_px),
            "channels": plan.image.channels,
            "network": plan.network.name,
            "initialisation": plan.network.initialisation,
            "hidden_units": plan.network.hidden_units,
            "projection": plan.network.projection,
            "encoder": None if plan.network.encoder is None else plan.network.encoder.model_dump(mode="json"),
        },
        "privacy": {
            "unit": plan.privacy.unit,
            "neighbouring_relation": plan.privacy.neighbouring_relation,
            "noise": plan.privacy.noise.value,
            "epsilon": plan.privacy.epsilon,
            "delta": plan.privacy.delta,
            "bought": None if bought is None else {**asdict(bought), "epsilon": bought.epsilon},
            "epsilon_seen_by": _observers(plan),
        },
        "secure_aggregation": {
            **rules.model_dump(mode="json"),
            "honest_survivors": rules.honest_survivors,
            "dropouts_tolerated": rules.cohort_size - max(rules.threshold, rules.minimum_survivors),
            "groups": plan.aggregation.takes_median,
        },
        "phases": [_phase(plan, index, fit) for index, fit in enumerate(fits)],
        "evaluations": evaluations(plan) if plan.evaluation.held_out else 0,
        "machines": stated_machines(plan),
        "result": _result(plan),
        "sites": [site.model_dump() for site in plan.sites],
        "leaves_a_site": {
            "masked update": _masked_update(plan),
            **({"noised evaluation counts": "inside the same masked vector"} if plan.evaluation.held_out else {}),
            **LEAVES_A_SITE,
        },
        "lights": as_values(lights(plan, fits)),
        "warnings": warnings(plan),
    }


def _masked_update(plan: StudyPlan) -> str:
    """Say what the one vector is that leaves a site in a round."""
    added = list(dict.fromkeys(WHAT_A_PATIENT_ADDS.get(phase.method, "gradients") for phase in plan.phases))
    return (
        f"the sum of what each patient adds, clipped ({'; '.join(added)}), noised and masked: uniform random "
        "numbers to everybody"
    )


def network_words(facts: dict[str, Any]) -> str:
    """Return what a plan trains, in words, from its facts (``summarise``)."""
    encoder = facts["task"]["encoder"]
    if encoder is None:
        return str(facts["task"]["network"])
    units = facts["task"]["hidden_units"]
    head = f"a head with {units} hidden units" if units else "a linear head"
    views = f"and {encoder['views']} weak views of it" if encoder["views"] else "alone"
    of = f"{facts['task']['projection']} random sums of " if facts["task"]["projection"] else ""
    return (
        f"{head} on {of}{encoder['features']} features ({', '.join(encoder['outputs'])}) of a public encoder, which "
        f"stays as it is; of each scan {views}, computed once"
    )


def _range_warnings(plan: StudyPlan, phase: Phase) -> list[str]:
    """Return what the plan's range for a coordinate of a hospital's sum cuts."""
    limit, largest = plan.secure_aggregation.coordinate_range, largest_sum(plan, phase)
    if phase.method not in SUMS_OF_MOMENTS or limit >= largest:
        return []
    warning = (
        f"phase {phase.name}: a hospital's sum may reach {largest:g} in a coordinate, coordinate_range is "
        f"{limit:g}; what lies beyond is cut, unseen: raise it"
    )
    return [warning]


def _normal_class(plan: StudyPlan) -> str | None:
    """Return the class that means nothing was found; None where several labels may hold at once."""
    return None if plan.task.kind is TaskKind.MULTI_LABEL else plan.task.classes[plan.task.normal_index]


def _class_warnings(plan: StudyPlan) -> list[str]:
    """Return whether a class that sounds normal is not taken for the normal one."""
    sounding, taken = plan.task.misplaced_normal, plan.task.classes[plan.task.normal_index]
    if sounding is None:
        return []
    remedy = "put it first"
    if plan.task.kind is not TaskKind.SEGMENTATION:
        remedy += f", or set task.normal_class = {sounding!r}"
    return [f"task.classes has {sounding!r}, but {taken!r} is taken for the normal class or background: {remedy}"]


def _step_warnings(plan: StudyPlan, phase: Phase) -> list[str]:
    """Return what the number of rounds of a private head costs, where the rule of public numbers says otherwise."""
    worth = steps_for(plan, phase)
    if worth is None or worth / FAR_FROM_RULE <= phase.rounds <= worth * FAR_FROM_RULE:
        return []
    labelled = sum(site.labelled_patients for site in plan.sites)
    warning = (
        f"phase {phase.name}: {phase.rounds} rounds, but a head from {labelled} labelled patients at epsilon "
        f"{plan.privacy.epsilon:g} is worth about {worth}: each round more costs noise (docs/results.md); set rounds, "
        "or method = ridge, which needs one"
    )
    return [warning]


def _observers(plan: StudyPlan) -> dict[str, float | None] | None:
    """Epsilon towards each observer; None where an observer can subtract nearly all noise (no finite epsilon)."""
    seen = seen_by(plan)
    if seen is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in asdict(seen).items()}


def _result(plan: StudyPlan) -> dict[str, Any]:
    """Which model the study gives out, when a phase ends, and how exact the scores are that may decide either."""
    rules, error = plan.aggregation, expected_standard_error(plan)
    ends = "after its planned rounds"
    if rules.stop_after_scores:
        gain = f" by more than {rules.least_gain:g}" if rules.least_gain else ""
        ends += f", or earlier: after {rules.stop_after_scores} noised scores in a row that beat no earlier one{gain}"
    return {
        "model": MODELS[rules.model_selection],
        "a_phase_ends": ends,
        "standard_error_of_a_score": error if math.isfinite(error) else None,
        "scores_may_decide": error <= MOST_STANDARD_ERROR,
    }


def _phase(plan: StudyPlan, index: int, fit: PhaseFit) -> dict[str, Any]:
    phase = plan.phases[index]
    return {
        "name": phase.name,
        "method": phase.method.value,
        "rounds": phase.rounds,
        "trained_parameters": fit.num_parameters,
        "numbers_of_a_sum": fit.sum_length,
        "expected_patients_per_round": plan.expected_batch(phase),
        "noise_multiplier": phase.noise_multiplier,
        "noise_to_signal": noise_to_signal(plan, phase, fit.num_parameters),
        "bytes_per_round": fit.sum_length * plan.secure_aggregation.word_bits // 8,
    }


def warnings(plan: StudyPlan) -> list[str]:
    """Return what is allowed but should be decided on purpose, one sentence each."""
    rules, found = plan.secure_aggregation, []
    if plan.privacy.noise is NoisePlacement.NONE:
        found.append("privacy.noise = none: no patient is protected by noise; sites refuse this unless told otherwise")
    if plan.privacy.noise is NoisePlacement.DISTRIBUTED:
        found.append("privacy.noise = distributed: epsilon holds while secure aggregation holds (computational)")
    if plan.privacy.epsilon is not None and plan.privacy.epsilon > 10:
        found.append(f"privacy.epsilon is {plan.privacy.epsilon:g}: above 10 the guarantee says little")
    if rules.assumed_colluders == 0:
        found.append("assumed_colluders = 0: any one curious hospital weakens what the others were promised")
    if rules.cohort_size == max(rules.threshold, rules.minimum_survivors):
        lost = "spoils its group" if plan.aggregation.takes_median else "aborts the round"
        found.append(f"no dropout is tolerated: one missing site of {rules.cohort_size} {lost}")
    found += _class_warnings(plan)
    if plan.network.initialisation == SEEDED and plan.network.name in WITH_START_WEIGHTS:
        found.append("network.initialisation = seeded: public pre-trained weights are the largest gain under privacy")
    if not says_range(plan):
        found.append(
            f"secure_aggregation.coordinate_range is not in the plan: {rules.coordinate_range:g} holds, its noise and "
            f"patients need {derived_range(plan):g}; one hospital may move a coordinate further than it must"
        )
    for phase in plan.phases:
        found += _range_warnings(plan, phase)
        found += _step_warnings(plan, phase)
    return found
