"""No setting of a plan is ignored silently: for each that some plans do not read, when it is read and why else not.

A setting that stands at its default is not a decision, and the plan's digest does not know whether it was written. One
that was changed, in a plan where nothing reads it, is refused: whoever wrote it expects something of it. The test
``tests/scenarios/test_every_setting.py`` changes every key of a plan and wants a difference or a refusal.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from common.networks.settings import AUTOENCODER, ENCODER, UNET
from common.networks.shapes import starts_at_zero
from common.networks.shipped_weights import check_initialisation
from common.plan.aggregation import ServerRule
from common.plan.combinations import WITH_TEACHER
from common.plan.errors import PlanInvalidError
from common.plan.part import PlanPart
from common.plan.phases import CLOSED_FORMS, Method, Phase, Trainable
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.shape import plan_parameters
from common.plan.task import SEEDED, Intensity, TaskKind

LABELS_AND_PSEUDO_LABELS: Final = frozenset({Method.SUPERVISED, Method.TEACHER_STUDENT, Method.FIXMATCH})

PhaseRule = tuple[Callable[[StudyPlan, Phase], bool], str]  # is it read, and by whom only
PlanRule = tuple[Callable[[StudyPlan], bool], str]


def check_settings_are_read(plan: StudyPlan, source: str) -> None:
    """Refuse a plan with a setting that nothing reads. Raises: PlanInvalidError with its place, value and reason."""
    ignored = list(ignored_settings(plan))
    if ignored:
        more = f" ({len(ignored) - 1} more settings like this)" if len(ignored) > 1 else ""
        raise PlanInvalidError(f"{source}: {ignored[0]}{more}")


def ignored_settings(plan: StudyPlan) -> Iterator[str]:
    """Yield a sentence for each setting that was changed from its default and that nothing would read."""
    for place, rules in PLAN_RULES.items():
        part: PlanPart = getattr(plan, place)
        yield from _ignored(part, f"{place}.", {name: (rule(plan), why) for name, (rule, why) in rules.items()})
    yield from _unseen_views(plan)
    for phase in plan.phases:
        read = {name: (rule(plan, phase), why) for name, (rule, why) in PHASE_RULES.items()}
        yield from _ignored(phase, f"phase {phase.name}: ", read)
        yield from _other_name(phase)
        yield from _cannot_teach(plan, phase)


def _ignored(part: PlanPart, place: str, rules: Mapping[str, tuple[bool, str]]) -> Iterator[str]:
    for name, (is_read, why) in rules.items():
        value, default = getattr(part, name), type(part).model_fields[name].default
        if value != default and not is_read:
            yield f"{place}{name} is {value}, but nothing reads it: {why}; remove it"


def _unseen_views(plan: StudyPlan) -> Iterator[str]:
    encoder = plan.network.encoder
    if encoder is not None and encoder.views > 0 and not any(_learns(phase) for phase in plan.phases):
        yield (
            f"network.encoder.views is {encoder.views}, but nothing reads them: standardise takes scans as they are; "
            "set 0"
        )


def _other_name(phase: Phase) -> Iterator[str]:
    """The two methods differ in what their teacher is, and in nothing else: the name must say what is done."""
    follows = phase.teacher_decay < 1
    if phase.method is Method.TEACHER_STUDENT and follows:
        yield (
            f"phase {phase.name}: teacher_decay is {phase.teacher_decay:g}, but method = teacher_student keeps its "
            "first model as teacher; use method = fixmatch, or set 1"
        )
    if phase.method is Method.FIXMATCH and not follows and phase.rounds > 1:
        yield (
            f"phase {phase.name}: teacher_decay is 1, but the teacher of method = fixmatch follows the model; set 0 "
            "(the last released model) to below 1, or use method = teacher_student"
        )


def _cannot_teach(plan: StudyPlan, phase: Phase) -> Iterator[str]:
    """Settings with which the very thing that a phase is for does not happen."""
    place, threshold = f"phase {phase.name}: ", phase.confidence_threshold
    if phase.method in WITH_TEACHER and threshold == 1:
        yield f"{place}confidence_threshold is 1, which no teacher reaches, so no unlabelled scan teaches; lower it"
    if phase.method in WITH_TEACHER and plan.task.kind is TaskKind.MULTI_LABEL and threshold < 0.5:
        yield (
            f"{place}confidence_threshold is {threshold:g}, below 0.5 a class of task.kind = multi_label is present "
            "and absent at once; raise it"
        )
    weighs = phase.method in WITH_TEACHER and not _is_private(plan)
    if weighs and phase.unlabelled_weight == 0:
        yield f"{place}unlabelled_weight is 0, so no unlabelled scan teaches; raise it, or use method = supervised"
    if phase.method is Method.RECONSTRUCTION and phase.trainable is Trainable.HEAD:
        yield f"{place}trainable is head, so method = reconstruction leaves the encoder as it is; set trainable = all"


def _is_private(plan: StudyPlan) -> bool:
    return plan.privacy.noise is not NoisePlacement.NONE


def _has_mixed_patients(plan: StudyPlan, phase: Phase) -> bool:
    return phase.labelled_sampling_rate > 0 and plan.image.maximum_scans_per_patient > 1


def _has_voxel_loss(plan: StudyPlan, phase: Phase) -> bool:
    """Whether label maps teach the network: the prior's are added up, and only labelled patients have any."""
    teaches = phase.method in {Method.SUPERVISED, Method.MEAN_TEACHER} and phase.labelled_sampling_rate > 0
    return teaches and plan.task.kind is TaskKind.SEGMENTATION


def _moves_label_maps(plan: StudyPlan, phase: Phase) -> bool:
    """Whether weak views move images and label maps, or the teacher's answers, alike."""
    return plan.task.kind is TaskKind.SEGMENTATION and phase.method in {Method.SUPERVISED, Method.MEAN_TEACHER}


def _learns(phase: Phase) -> bool:
    """Whether the server's rule makes the step: standardise, ridge and prior have closed forms of their own."""
    return phase.method not in CLOSED_FORMS


def _remembers(plan: StudyPlan, phase: Phase) -> bool:
    """Whether a step depends on the steps before."""
    return _learns(phase) and phase.rounds > 1 and plan.aggregation.rule is not ServerRule.MEAN


def _has_views(plan: StudyPlan) -> bool:
    return plan.network.encoder is None or plan.network.encoder.views > 0


def _draws_weights(plan: StudyPlan) -> bool:
    """Whether any start weight comes from the seed: not a bias, not a head that starts at zero, not in the file."""
    network = plan.network
    parameters = dict(plan_parameters(plan))
    drawn_head = network.name == AUTOENCODER or not plan.starts_with_zero_head
    filled = frozenset[str]()
    if network.initialisation != SEEDED:
        filled = check_initialisation(parameters, network.initialisation)
    return any(
        len(shape) >= 2 and name not in filled and (drawn_head or not starts_at_zero(name))
        for name, shape in parameters.items()
    )


PHASE_RULES: Final[dict[str, PhaseRule]] = {
    "clipping_norm": (lambda plan, _: _is_private(plan), "with privacy.noise = none no contribution is clipped"),
    "unlabelled_clip_ratio": (
        lambda plan, phase: _is_private(plan) and phase.unlabelled_sampling_rate > 0,
        "it clips unlabelled patients of a private phase that samples some",
    ),
    "unlabelled_weight": (
        lambda plan, phase: (
            (phase.method in WITH_TEACHER and not _is_private(plan))
            or (phase.method in {Method.TEACHER_STUDENT, Method.FIXMATCH} and _has_mixed_patients(plan, phase))
        ),
        "it weighs what a teacher says without privacy, and in teacher_student and fixmatch beside labelled scans",
    ),
    "ramp_up_rounds": (
        lambda plan, phase: phase.method is Method.MEAN_TEACHER and not _is_private(plan),
        "it ramps a mean teacher's weight, and with a clip of their own unlabelled patients have none",
    ),
    "confidence_threshold": (lambda _, phase: phase.method in WITH_TEACHER, "only methods with a teacher have one"),
    "unlabelled_from_round": (lambda _, phase: phase.method in WITH_TEACHER, "only methods with a teacher wait"),
    "teacher_decay": (
        lambda _, phase: phase.method in WITH_TEACHER and phase.rounds > 1,
        "only a teacher of several rounds follows the model",
    ),
    "gate_balanced_accuracy": (lambda _, phase: phase.method in WITH_TEACHER, "only a teacher is judged"),
    "hidden_share": (lambda _, phase: phase.method is Method.RECONSTRUCTION, "only reconstruction hides patches"),
    "class_weights": (
        lambda plan, phase: (
            (plan.task.kind is TaskKind.CLASSIFICATION and phase.method in LABELS_AND_PSEUDO_LABELS)
            or _has_voxel_loss(plan, phase)
        ),
        "they weigh the one class of an image (supervised, teacher_student, fixmatch) or of a voxel of a label map",
    ),
    "loss": (_has_voxel_loss, "it is the loss of segmentation's label maps"),
    "prior_smoothing_px": (lambda _, phase: phase.method is Method.PRIOR, "only a prior is smoothed"),
    "views_per_scan": (
        lambda plan, phase: _learns(phase) and _has_views(plan),
        "standardise, ridge, and an encoder without views, take scans as they are",
    ),
    "local_learning_rate": (
        lambda plan, _: plan.privacy.noise is NoisePlacement.LOCAL,
        "sites make steps of their own only with privacy.noise = local",
    ),
    "proximal_weight": (lambda _, phase: phase.local_steps > 1, "the first local step starts where it pulls to"),
    "learning_rate": (lambda _, phase: _learns(phase), "standardise, ridge and prior have a closed form"),
    "view_range": (_moves_label_maps, "it is of segmentation's weak views"),
    "mirrored_axes": (_moves_label_maps, "they are of segmentation's weak views"),
    "warm_up_rounds": (lambda _, phase: _learns(phase), "standardise, ridge and prior have a closed form"),
    "schedule": (lambda _, phase: _learns(phase), "standardise, ridge and prior have a closed form"),
    "momentum": (_remembers, "aggregation.rule = mean, closed forms and a single round remember no step before"),
}
PLAN_RULES: Final[dict[str, dict[str, PlanRule]]] = {
    "image": {
        "percentiles": (lambda plan: plan.image.intensity is Intensity.PERCENTILES, "intensity is another one"),
        "patches_per_patient": (lambda plan: bool(plan.image.patch_px), "there is no patch_px to take patches of"),
        "foreground_share": (
            lambda plan: bool(plan.image.patch_px) and any(phase.labelled_sampling_rate > 0 for phase in plan.phases),
            "there is no patch_px, or nobody whose scans experts drew on is sampled",
        ),
        "public_images": (
            lambda plan: any(phase.gate_balanced_accuracy > 0 for phase in plan.phases),
            "no phase has a gate_balanced_accuracy to judge on them",
        ),
    },
    "network": {
        "seed": (_draws_weights, "every start weight is in the initialisation, or zero"),
        "width": (lambda plan: plan.network.name != ENCODER, "a head on an encoder has no width"),
        "levels": (lambda plan: plan.network.name == UNET, "only a U-Net has levels to choose"),
        "hidden_units": (lambda plan: plan.network.name == ENCODER, "only a head on an encoder has them"),
        "projection": (lambda plan: plan.network.name == ENCODER, "only a head on an encoder has one"),
    },
    "aggregation": {
        "rule": (
            lambda plan: any(_learns(phase) for phase in plan.phases),
            "every phase has a closed form (standardise, ridge, prior)",
        ),
        "learning_rate": (
            lambda plan: any(_learns(phase) and phase.learning_rate is None for phase in plan.phases),
            "every phase that learns names its own",
        ),
        "momentum": (
            lambda plan: any(_remembers(plan, phase) and phase.momentum is None for phase in plan.phases),
            "no phase remembers steps by it (rule = mean, a single round, or a momentum of its own)",
        ),
        "second_momentum": (
            lambda plan: (
                plan.aggregation.rule in {ServerRule.ADAM, ServerRule.YOGI}
                and any(_remembers(plan, phase) for phase in plan.phases)
            ),
            "only rules adam and yogi have one, from the second round on",
        ),
        "adaptivity": (
            lambda plan: (
                plan.aggregation.rule in {ServerRule.ADAM, ServerRule.YOGI}
                and any(_learns(phase) for phase in plan.phases)
            ),
            "only rules adam and yogi divide by it",
        ),
        "average_decay": (
            lambda plan: (
                plan.aggregation.model_selection != "last"
                and any(_learns(phase) and phase.rounds > 1 for phase in plan.phases)
            ),
            "the result is no average (model_selection = last, or no phase of several rounds that learns)",
        ),
        "model_selection": (
            lambda plan: any(_learns(phase) and phase.rounds > 1 for phase in plan.phases),
            "there is one model to select",
        ),
        "least_gain": (lambda plan: plan.aggregation.stop_after_scores > 0, "stop_after_scores is 0"),
    },
    "evaluation": {
        "every_rounds": (lambda plan: plan.evaluation.held_out, "nobody is held out"),
        "epsilon": (
            lambda plan: plan.evaluation.held_out and _is_private(plan),
            "nobody is held out, or nothing is noised",
        ),
        "score_bins": (
            lambda plan: plan.evaluation.held_out and plan.task.kind is not TaskKind.SEGMENTATION,
            "nobody is held out, or segmentation counts Dice without bins",
        ),
    },
    "timing": {
        "slow_multiple": (
            lambda plan: plan.secure_aggregation.least_cohort < plan.secure_aggregation.cohort_size,
            "no hospital may be missing from a round, so the slowest is always waited for",
        ),
    },
}
