"""From a phase of the plan to what one site's training needs: every number public, none from the site's data."""

from typing import Final

from client.learning.patch_rule import PatchRule
from client.learning.training_settings import Method, Placement, Task, TrainingSettings
from common.plan.phases import Axis, Phase, ViewRange
from common.plan.plan import Site, StudyPlan
from common.plan.task import Image

AXIS_OF: Final = {Axis.WIDTH: 0, Axis.HEIGHT: 1, Axis.DEPTH: 2}  # of ``views.ViewRange``


def _patch_rule(image: Image) -> PatchRule | None:
    return PatchRule(image.patch_px, image.patches_per_patient, image.foreground_share) if image.patch_px else None


def phase_settings(plan: StudyPlan, phase: Phase, site: Site) -> TrainingSettings:
    """Return the training settings of ``phase`` at ``site``.

    ``expected_batch`` is the site's own public divisor of local steps: declared counts times sampling rates; 1 where
    nobody is expected (such a site adds noise only).
    Raises: PlanInvalidError for settings against one another.
    """
    expected = (
        phase.labelled_sampling_rate * site.labelled_patients
        + phase.unlabelled_sampling_rate * site.unlabelled_patients
    )
    return TrainingSettings(
        task=Task(plan.task.kind.value),
        classes=len(plan.task.classes),
        dimensions=plan.task.dimensions,
        method=Method(phase.method.value),
        placement=Placement(plan.privacy.noise.value),
        trainable=phase.trainable.value,
        labelled_sampling_rate=phase.labelled_sampling_rate,
        unlabelled_sampling_rate=phase.unlabelled_sampling_rate,
        clipping_norm=phase.clipping_norm,
        unlabelled_clip_ratio=phase.unlabelled_clip_ratio,
        noise_multiplier=phase.noise_multiplier,
        honest_survivors=plan.secure_aggregation.honest_survivors,
        expected_batch=expected or 1.0,
        most_scans=plan.image.maximum_scans_per_patient,
        patches=_patch_rule(plan.image),
        views_per_scan=phase.views_per_scan,
        wide_views=phase.view_range is ViewRange.WIDE,
        mirrored=tuple(AXIS_OF[axis] for axis in phase.mirrored_axes),
        class_weights=phase.class_weights,
        loss=phase.loss,
        confidence_threshold=phase.confidence_threshold,
        unlabelled_weight=phase.unlabelled_weight,
        unlabelled_from_round=phase.unlabelled_from_round,
        ramp_up_rounds=phase.ramp_up_rounds,
        teacher_decay=phase.teacher_decay,
        gate_balanced_accuracy=phase.gate_balanced_accuracy,
        hidden_share=phase.hidden_share,
        local_steps=phase.local_steps,
        local_learning_rate=phase.local_learning_rate,
        proximal_weight=phase.proximal_weight,
    )
