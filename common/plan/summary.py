"""What a person should know of a plan before signing or approving it: plain facts, what leaves a site, warnings."""

import math
from dataclasses import asdict
from typing import Any

from common.plan.fitting import PhaseFit
from common.plan.guarantee import Guarantee, evaluations, noise_to_signal, seen_by
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement

NOISE_WARNING_LEVEL = 1.0

LEAVES_A_SITE = {
    "masked update": "the sum of clipped patient gradients, noised and masked: uniform random numbers to everybody",
    "noised evaluation counts": "inside the same masked vector",
    "protocol messages": "public keys, sealed key shares, signatures, fixed codes",
    "never": "scans, labels, patient counts, losses, an unmasked update, log lines, file names",
}


def summarise(plan: StudyPlan, bought: Guarantee | None, fits: list[PhaseFit]) -> dict[str, Any]:
    """Return the facts of a checked plan as plain values, in the order a person reads them (also the JSON form)."""
    rules = plan.secure_aggregation
    return {
        "study": plan.study.name,
        "title": plan.study.title,
        "digest": plan.digest(),
        "task": {
            "kind": plan.task.kind.value,
            "classes": list(plan.task.classes),
            "modalities": [modality.value for modality in plan.task.modalities],
            "input_px": list(plan.image.size_px),
            "network": plan.network.name,
            "initialisation": plan.network.initialisation,
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
        },
        "phases": [_phase(plan, index, fit) for index, fit in enumerate(fits)],
        "evaluations": evaluations(plan),
        "sites": [site.model_dump() for site in plan.sites],
        "leaves_a_site": LEAVES_A_SITE,
        "warnings": warnings(plan, fits),
    }


def _observers(plan: StudyPlan) -> dict[str, float | None] | None:
    """Epsilon towards each observer; None where an observer can subtract nearly all noise (no finite epsilon)."""
    seen = seen_by(plan)
    if seen is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in asdict(seen).items()}


def _phase(plan: StudyPlan, index: int, fit: PhaseFit) -> dict[str, Any]:
    phase = plan.phases[index]
    return {
        "name": phase.name,
        "method": phase.method.value,
        "rounds": phase.rounds,
        "trained_parameters": fit.num_parameters,
        "expected_patients_per_round": plan.expected_batch(phase),
        "noise_multiplier": phase.noise_multiplier,
        "noise_to_signal": noise_to_signal(plan, phase, fit.num_parameters),
        "bytes_per_round": fit.num_parameters * plan.secure_aggregation.word_bits // 8,
    }


def warnings(plan: StudyPlan, fits: list[PhaseFit]) -> list[str]:
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
        found.append(f"no dropout is tolerated: one missing site of {rules.cohort_size} aborts the round")
    if plan.network.initialisation == "seeded":
        found.append("network.initialisation = seeded: public pre-trained weights are the largest gain under privacy")
    for phase, fit in zip(plan.phases, fits, strict=True):
        ratio = noise_to_signal(plan, phase, fit.num_parameters)
        if ratio > NOISE_WARNING_LEVEL:
            found.append(
                f"phase {phase.name}: noise is {ratio:.1f} times the signal of a round "
                f"({fit.num_parameters} parameters, {plan.expected_batch(phase):.0f} patients a round); "
                "train fewer parameters, or sample more patients"
            )
    return found
