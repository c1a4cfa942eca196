"""How long a reply slot must be: as long as the largest sample takes, so that the time of an answer tells nothing.

    slot = start + cost (largest sample + held-out patients)          both in scans of the largest hospital
    largest sample of n patients at rate q: n q + t, at most n;  P(more) < 1e-12 a step (Bernstein's inequality)

Samples are Poisson, so the time of training follows a private number; an answer leaves at the end of a slot instead
(``client.secagg.slots``). The cost of a scan is that of one thread of an ordinary processor with room to spare: a GPU
is faster, and waits.
"""

import math
from typing import Final

from common.plan.errors import PlanInvalidError
from common.plan.phases import Method, Phase
from common.plan.plan import Site, StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.selection import HELD_OUT_SHARE
from common.plan.shape import plan_parameters, sum_length

START_S: Final = 2.0  # first scans, a process that must be started
# Seconds of one forward and backward pass of one scan, for each pixel and unit of width; measured 1e-7, 2.8e-7,
# 1.2e-7 (forward, its encoder learns nothing), of others 4.4e-7.
COST_S: Final = {"small_cnn": 2.5e-7, "residual": 6e-7, "residual_levels": 6e-7, "level_head": 3e-7}
COST_OF_OTHERS_S: Final = 1e-6
# A row of features: to open its file, and for each product of the head; measured 1.2e-4 and 3e-9.
READING_S: Final = 1e-3
HEAD_COST_S: Final = 1e-8
OPENING_S: Final = 5e-9  # of a voxel of a whole scan: to decrypt it, and to look where experts drew
MOMENT_COST_S: Final = 6e-8  # of a number of a ridge phase's sum, for each scan; measured 3.7e-8
FASTEST: Final = 10.0  # times faster than that: a shorter slot than a fast machine needs is no slot
LONGEST_S: Final = 3600.0  # ``Timing.reply_slot_s``
_LOG_CHANCE: Final = math.log(1e12)


def largest_sample(patients: int, sampling_rate: float) -> int:
    """Return how many of ``patients`` are sampled at most, but with a chance below 1e-12 (Bernstein 1924)."""
    variance = patients * sampling_rate * (1 - sampling_rate)
    excess = _LOG_CHANCE / 3 + math.sqrt(_LOG_CHANCE**2 / 9 + 2 * _LOG_CHANCE * variance)
    return min(patients, math.ceil(patients * sampling_rate + excess)) if sampling_rate > 0 else 0


def default_reply_slot_s(plan: StudyPlan) -> float:
    """Return the slot, in whole seconds, that the largest sample of any phase and site needs; at most an hour."""
    needed_s = max(_training_s(plan, phase, site) for phase in plan.phases for site in plan.sites)
    return float(min(LONGEST_S, math.ceil(START_S + needed_s)))


def reply_slot_s(plan: StudyPlan) -> float:
    """Return the slot that a site keeps to: the plan's; 0 without privacy.

    A private plan of before slots were asked for gets the default, within half of what the coordinator waits.
    """
    if plan.timing.reply_slot_s > 0 or plan.privacy.noise is NoisePlacement.NONE:
        return plan.timing.reply_slot_s
    return min(default_reply_slot_s(plan), plan.timing.training_timeout_s / 2)


def check_reply_slot(plan: StudyPlan, source: str) -> None:
    """Refuse a private plan without a reply slot, or with one that hides nothing or comes after the coordinator waits.

    Raises: PlanInvalidError with the value, the limit and what to write.
    """
    slot_s, wait_s, default_s = plan.timing.reply_slot_s, plan.timing.training_timeout_s, default_reply_slot_s(plan)
    where = f"{source}: timing.reply_slot_s is {slot_s:g}"
    if slot_s >= wait_s:
        raise PlanInvalidError(f"{where}, so answers leave after timing.training_timeout_s ({wait_s:g}); raise that")
    if plan.privacy.noise is not NoisePlacement.NONE and slot_s < default_s / FASTEST:
        raise PlanInvalidError(
            f"{where}: the time of an answer would tell how many patients were sampled; write {default_s:g}, what the "
            f"largest sample takes on one thread (at least {default_s / FASTEST:g}, where every hospital is faster)"
        )


def _training_s(plan: StudyPlan, phase: Phase, site: Site) -> float:
    """Return the seconds of the largest round of a phase at a site, its scoring included."""
    sampled = largest_sample(site.labelled_patients, phase.labelled_sampling_rate)
    sampled += largest_sample(site.unlabelled_patients, phase.unlabelled_sampling_rate)
    scored = HELD_OUT_SHARE * site.labelled_patients if plan.evaluation.held_out else 0.0
    if plan.image.patch_px:
        return _patches_s(plan, phase, sampled, scored)
    passes = plan.image.maximum_scans_per_patient * (sampled * phase.views_per_scan * phase.local_steps + scored)
    if phase.method is Method.RIDGE:
        of_moments = sampled * plan.image.maximum_scans_per_patient * sum_length(plan_parameters(plan), phase)
        return passes * _cost_s(plan) + MOMENT_COST_S * of_moments
    return passes * _cost_s(plan)


def _patches_s(plan: StudyPlan, phase: Phase, sampled: int, scored: float) -> float:
    """Return the seconds where patches are cut of whole scans, and whole scans are answered by windows."""
    scans, steps = plan.image.maximum_scans_per_patient, sampled * phase.local_steps
    passes = plan.image.patches_per_patient * steps * phase.views_per_scan + scans * scored * _windows(plan)
    opened = min(scans, plan.image.patches_per_patient) * steps + scans * scored
    return passes * _cost_s(plan) + OPENING_S * math.prod(plan.image.size_px) * opened


def _windows(plan: StudyPlan) -> int:
    """Return the windows that a scan is answered by, half over one another; 1 where the network sees all of it."""
    sides = zip(plan.image.size_px, plan.image.seen_px, strict=True)
    return math.prod(math.ceil((side - seen) / max(1, seen // 2)) + 1 for side, seen in sides)


def _cost_s(plan: StudyPlan) -> float:
    """Return the seconds of one pass of one scan, or patch."""
    network = plan.network
    if network.encoder:  # its features are computed beforehand: what is left reads a row and multiplies
        seen, units = network.projection or network.features, network.hidden_units + len(plan.task.classes)
        return READING_S + HEAD_COST_S * (network.features * network.projection + seen * units)
    return COST_S.get(network.name, COST_OF_OTHERS_S) * network.width * math.prod(plan.image.seen_px)
