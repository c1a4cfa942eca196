"""What goes with what: one table of task, method, network and loss, read by ``plan check`` and by every site.

A plan that passes here can be trained; one that could only fail at the hospitals is refused before anybody signs it.

    task             networks that answer it        methods                                         loss of a scan
    classification   small_cnn, encoder, residual*  supervised, teacher_student, fixmatch           cross-entropy
    multi_label      small_cnn, encoder, residual*  supervised, teacher_student, fixmatch           binary cross-entropy
    segmentation     unet                           supervised, mean_teacher                        Dice + cross-entropy
    segmentation     unet, level_head               prior, trainable = prior (first phase)          label maps
    segmentation     level_head                     supervised, mean_teacher, trainable = head      Dice + cross-entropy
    any              autoencoder                    reconstruction (answers nothing: no scores)     squared error
    any              with feature norm**            standardise, trainable = feature_norm           feature moments
    classification   with feature norm**            ridge, trainable = head                         second moments
    multi_label      with feature norm**            ridge, trainable = head                         second moments

* residual and residual_levels. ** small_cnn, residual_levels, encoder; level_head has one too, but for ridge.
The gate on public images belongs to classification; Dice + cross-entropy is what ``loss`` stands at. Which other
settings a plan's methods read: ``common.plan.settings_read``.
"""

import math
from collections.abc import Callable, Iterator
from typing import Final

from common.networks.settings import (
    AUTOENCODER,
    ENCODER,
    LEAST_LEVELS,
    LEVEL_HEAD,
    RESIDUAL,
    RESIDUAL_LEVELS,
    SMALL_CNN,
    UNET,
    WITH_PRIOR,
)
from common.plan.aggregation import LEAST_GROUPS, LEAST_HOSPITALS_IN_GROUPS
from common.plan.errors import PlanInvalidError
from common.plan.phases import Axis, Method, Phase, Trainable
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.protocol import expected_patients
from common.plan.task import Intensity, Modality, TaskKind

MOST_VOXELS: Final = 1 << 27  # of a volume: reading scans takes no larger one; a CT of 400 x 512 x 512 has 105 million
ANSWERS: Final[dict[str, frozenset[TaskKind]]] = {
    SMALL_CNN: frozenset({TaskKind.CLASSIFICATION, TaskKind.MULTI_LABEL}),
    RESIDUAL: frozenset({TaskKind.CLASSIFICATION, TaskKind.MULTI_LABEL}),
    RESIDUAL_LEVELS: frozenset({TaskKind.CLASSIFICATION, TaskKind.MULTI_LABEL}),
    UNET: frozenset({TaskKind.SEGMENTATION}),
    LEVEL_HEAD: frozenset({TaskKind.SEGMENTATION}),
    AUTOENCODER: frozenset(),
    ENCODER: frozenset({TaskKind.CLASSIFICATION, TaskKind.MULTI_LABEL}),
}
WITH_FEATURES: Final = (SMALL_CNN, RESIDUAL_LEVELS, ENCODER)  # a feature norm, and a linear head on it
# Methods whose network need not answer the task, and the networks that each takes.
WITHOUT_ANSWER: Final = {Method.RECONSTRUCTION: (AUTOENCODER,), Method.STANDARDISE: (*WITH_FEATURES, LEVEL_HEAD)}
IMAGE_METHODS: Final = frozenset({Method.SUPERVISED, Method.TEACHER_STUDENT, Method.FIXMATCH, Method.RIDGE})
METHODS: Final[dict[TaskKind, frozenset[Method]]] = {
    TaskKind.CLASSIFICATION: IMAGE_METHODS | WITHOUT_ANSWER.keys(),
    TaskKind.MULTI_LABEL: IMAGE_METHODS | WITHOUT_ANSWER.keys(),
    TaskKind.SEGMENTATION: frozenset({Method.SUPERVISED, Method.MEAN_TEACHER, Method.PRIOR, *WITHOUT_ANSWER}),
}
WITH_TEACHER: Final = frozenset({Method.TEACHER_STUDENT, Method.FIXMATCH, Method.MEAN_TEACHER})
# Their objects say where in the patient a picture lies (DICOM PS3.3 section C.7.6.2), so they can become volumes.
MODALITIES_IN_SPACE: Final = frozenset({Modality.CT, Modality.MR, Modality.PT, Modality.MG})
# Their pictures may be in colour: fundus and skin photographs, ultrasound with Doppler.
MODALITIES_IN_COLOUR: Final = frozenset({Modality.OP, Modality.US, Modality.XC})
IN_COLOUR: Final = frozenset({Intensity.LUMINANCE, Intensity.PERCENTILES})


def check_combinations(plan: StudyPlan, source: str) -> None:
    """Refuse a plan whose parts do not go together. Raises: PlanInvalidError with place, value, and what would do."""
    for complaint in _complaints(plan):
        raise PlanInvalidError(f"{source}: {complaint}")


def _complaints(plan: StudyPlan) -> Iterator[str]:
    for rule in RULES:
        yield from rule(plan)
    for phase in plan.phases:
        for phase_rule in PHASE_RULES:
            yield from (f"phase {phase.name}: {complaint}" for complaint in phase_rule(plan, phase))


def _network_answers(plan: StudyPlan) -> Iterator[str]:
    name, kind = plan.network.name, plan.task.kind
    if name in ANSWERS and kind not in ANSWERS[name] and name != AUTOENCODER:
        yield f"network.name is {name}, which does not answer task.kind = {kind}; {_choose(_networks_for(kind))}"
    if name == AUTOENCODER and plan.evaluation.held_out:
        yield (
            "evaluation.held_out is true, but network.name = autoencoder answers nothing that could be scored; "
            "set held_out = false"
        )


def _volumes_fit(plan: StudyPlan) -> Iterator[str]:
    voxels = math.prod(plan.image.size_px)
    if plan.task.dimensions == 3 and voxels > MOST_VOXELS:
        sides = " x ".join(map(str, plan.image.size_px))
        yield (
            f"image.size_px is {sides} = {voxels} voxels, no volume above {MOST_VOXELS} is read; lower size_px, "
            "or raise spacing_mm so that as much of the patient fits"
        )
    flat = sorted(modality for modality in plan.task.modalities if modality not in MODALITIES_IN_SPACE)
    if plan.task.dimensions == 3 and flat:
        yield (
            f"task.modalities has {', '.join(flat)}, whose pictures never make a volume (they do not say where in the "
            f"patient they lie); {_choose(MODALITIES_IN_SPACE)}, or set task.dimensions = 2"
        )


def _sides_halve(plan: StudyPlan) -> Iterator[str]:
    """Three levels take any side, as they always did: with more, what a side loses by rounding is worth a sentence."""
    parts = 2 ** (plan.network.levels - 1)
    odd = [side for side in plan.image.seen_px if side % parts]
    key = "patch_px" if plan.image.patch_px else "size_px"
    if plan.network.name == UNET and plan.network.levels > LEAST_LEVELS and odd:
        yield (
            f"image.{key} has {', '.join(map(str, odd))}, which {plan.network.levels} levels (network.levels) do not "
            f"divide: each side must be a multiple of {parts}; change {key}, or lower levels"
        )


def _patches_fit(plan: StudyPlan) -> Iterator[str]:
    patch, size = plan.image.patch_px, plan.image.size_px
    if not patch:
        return
    if plan.task.kind is not TaskKind.SEGMENTATION or plan.network.name == AUTOENCODER:
        yield (
            f"image.patch_px is for a network that answers task.kind = segmentation, here {plan.network.name} has "
            f"{plan.task.kind}; remove it"
        )
    if len(patch) != len(size) or any(side > whole for side, whole in zip(patch, size, strict=False)):
        yield (
            f"image.patch_px is {list(patch)}, image.size_px {list(size)}: as many numbers, and none larger; "
            "lower patch_px, or remove it"
        )
    if plan.network.prior:
        yield "network.prior is true, but a prior lies on the whole image's grid, image.patch_px is a part; remove one"


def _spacing_has_every_side(plan: StudyPlan) -> Iterator[str]:
    given = len(plan.image.spacing_mm)
    if given not in (0, plan.task.dimensions):
        yield f"image.spacing_mm has {given} numbers, task.dimensions is {plan.task.dimensions}; give as many, or none"


def _window_is_of_ct(plan: StudyPlan) -> Iterator[str]:
    others = [modality.value for modality in plan.task.modalities if modality is not Modality.CT]
    if plan.image.intensity is Intensity.CT_WINDOW and others:
        yield (
            f"image.intensity is ct_window, but {', '.join(others)} (task.modalities) has no Hounsfield units; "
            "use percentiles, or CT alone"
        )


def _uptake_is_of_pet(plan: StudyPlan) -> Iterator[str]:
    others = [modality.value for modality in plan.task.modalities if modality is not Modality.PT]
    if plan.image.intensity is Intensity.SUV_RANGE and others:
        yield (
            f"image.intensity is suv_range, but {', '.join(others)} (task.modalities) has no uptake values; "
            "use percentiles, or PT alone"
        )


def _colour_is_there(plan: StudyPlan) -> Iterator[str]:
    if plan.image.channels == 1:
        return
    if plan.task.dimensions != 2:
        yield f"image.channels is {plan.image.channels}, but task.dimensions is 3 and volumes are grey; remove channels"
    grey = sorted(modality for modality in plan.task.modalities if modality not in MODALITIES_IN_COLOUR)
    if grey:
        yield (
            f"image.channels is {plan.image.channels}, but {', '.join(grey)} (task.modalities) has no colour; "
            f"{_choose(MODALITIES_IN_COLOUR)}, or remove channels"
        )
    if plan.image.intensity not in IN_COLOUR:
        yield (
            f"image.channels is {plan.image.channels}, but image.intensity = {plan.image.intensity} is for grey "
            "values; use luminance (the full scale of each colour), or percentiles"
        )


def _groups_have_a_median(plan: StudyPlan) -> Iterator[str]:
    """Three groups that can each open a sum, hospitals that have patients for each phase, and noise in every sum."""
    if not plan.aggregation.takes_median:
        return
    rules, sites = plan.secure_aggregation, len(plan.sites)
    where = "aggregation.robust is median_of_groups, but"
    if sites < LEAST_HOSPITALS_IN_GROUPS:
        yield f"{where} the plan lists {sites} sites, groups need {LEAST_HOSPITALS_IN_GROUPS}; remove it"
    elif sites < LEAST_GROUPS * rules.least_cohort:
        yield (
            f"{where} {sites} sites do not make {LEAST_GROUPS} groups of {rules.least_cohort} (secure_aggregation: the "
            f"larger of threshold {rules.threshold} and minimum_survivors {rules.minimum_survivors}, in each group); "
            f"secure_aggregation.cohort_size is that of one group: lower it to at most {sites // LEAST_GROUPS}, and "
            "threshold with it"
        )
    if plan.privacy.noise is NoisePlacement.NONE:
        yield f"{where} privacy.noise is none, and without noise a hospital opens one sum of a model only; remove it"
    for phase in plan.phases:
        if phase.method is Method.RIDGE:
            yield f"{where} phase {phase.name} has method = ridge, whose two sums have no mean of their own; remove it"
        for site in plan.sites:
            if expected_patients(phase, site) <= 0:
                yield f"{where} {site.name} has no patient for phase {phase.name}, so its group may have no mean"


def _method_fits(plan: StudyPlan, phase: Phase) -> Iterator[str]:
    kind, method, network = plan.task.kind, phase.method, plan.network.name
    if method not in METHODS[kind]:
        yield f"method = {method} does not fit task.kind = {kind}; {_choose(METHODS[kind])}"
    elif method in WITHOUT_ANSWER and network not in WITHOUT_ANSWER[method]:
        yield f"method = {method} needs network.name = {' or '.join(WITHOUT_ANSWER[method])}, it is {network}"
    elif method is Method.RIDGE and network not in WITH_FEATURES:
        yield f"method = ridge needs network.name = {' or '.join(WITH_FEATURES)}, it is {network}"
    elif method is Method.PRIOR and network not in WITH_PRIOR:
        yield f"method = prior needs network.name = {' or '.join(WITH_PRIOR)}, it is {network}"
    elif network == LEVEL_HEAD and phase.trainable is Trainable.ALL:
        yield f"trainable = all, but the encoder of network.name = {LEVEL_HEAD} stays as it was drawn; set head"
    elif method not in WITHOUT_ANSWER and network == AUTOENCODER:
        yield f"method = {method} needs a network that answers; {_choose(_networks_for(kind))}, it is {network}"


def _steps_travel(plan: StudyPlan, phase: Phase) -> Iterator[str]:
    if plan.privacy.noise is not NoisePlacement.LOCAL and (phase.local_steps != 1 or phase.proximal_weight != 0):
        yield f"local_steps must be 1 and proximal_weight 0, because a sum travels with noise = {plan.privacy.noise}"


def _gate_can_judge(plan: StudyPlan, phase: Phase) -> Iterator[str]:
    if phase.gate_balanced_accuracy > 0 and plan.task.kind is not TaskKind.CLASSIFICATION:
        yield (
            f"gate_balanced_accuracy judges one class an image, task.kind is {plan.task.kind}; set 0, and choose "
            "unlabelled_from_round instead"
        )
    if phase.gate_balanced_accuracy > 0 and plan.network.encoder:
        yield (
            "gate_balanced_accuracy judges on public images, network.name = encoder takes features, which nobody "
            "computes of those; set 0, and choose unlabelled_from_round instead"
        )


def _axes_are_there(plan: StudyPlan, phase: Phase) -> Iterator[str]:
    axes = phase.mirrored_axes
    if Axis.DEPTH in axes and plan.task.dimensions == 2:
        yield "mirrored_axes has depth, task.dimensions is 2; choose from: height, width"
    if len(set(axes)) != len(axes):
        yield "mirrored_axes has an axis twice; each may appear once"


def _unlabelled_come_in_time(_: StudyPlan, phase: Phase) -> Iterator[str]:
    if phase.unlabelled_from_round > phase.rounds:
        yield (
            f"unlabelled_from_round is {phase.unlabelled_from_round}, the phase has {phase.rounds} rounds, so no "
            "unlabelled scan would ever teach; lower it"
        )


def _networks_for(kind: TaskKind) -> list[str]:
    return [name for name, kinds in ANSWERS.items() if kind in kinds]


def _choose(names: frozenset[Method] | frozenset[Modality] | list[str]) -> str:
    return f"choose from: {', '.join(sorted(map(str, names)))}"


RULES: Final[tuple[Callable[[StudyPlan], Iterator[str]], ...]] = (
    _network_answers,
    _volumes_fit,
    _sides_halve,
    _patches_fit,
    _spacing_has_every_side,
    _window_is_of_ct,
    _uptake_is_of_pet,
    _colour_is_there,
    _groups_have_a_median,
)
PHASE_RULES: Final[tuple[Callable[[StudyPlan, Phase], Iterator[str]], ...]] = (
    _method_fits,
    _steps_travel,
    _gate_can_judge,
    _unlabelled_come_in_time,
    _axes_are_there,
)
