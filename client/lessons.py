"""What one patient's scans teach, for each method: rows of (view, target, weight) and the loss they go through.

Everything here is a function of one patient's record, of public values (settings, released teacher) and of that
patient's own random numbers. This is the line that nothing may cross; the neighbour replay test watches it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from client import losses, pseudo_labels
from client.dicom.record import Stratum
from client.patients import UNKNOWN, PatientScans
from client.private_gradients.stacks import PatientRows
from client.teacher import Teacher
from client.training_settings import Method, Placement, Task, TrainingSettings
from client.views import STRONG, WEAK, apply_geometry, apply_intensity, draw_views, hide_patches, view

Rows = Callable[[PatientScans, torch.Generator], PatientRows | None]


@dataclass(frozen=True)
class Lesson:
    """How a stratum's patients teach: ``rows`` prepares one patient (None: nothing to learn from), ``loss`` judges."""

    rows: Rows
    loss: losses.ScanLoss


def lesson_for(stratum: Stratum, settings: TrainingSettings, teacher: Teacher) -> Lesson:
    """Return the lesson of a stratum in this phase."""
    learner = Learner(settings, teacher)
    if settings.method is Method.RECONSTRUCTION:
        return Lesson(learner.reconstruction, losses.reconstruction)
    if settings.method is Method.STANDARDISE:
        return Lesson(learner.plain, losses.as_given)
    if settings.task is Task.SEGMENTATION:
        if stratum is Stratum.LABELLED:
            return Lesson(learner.label_maps, losses.dice_and_cross_entropy)
        return Lesson(learner.voxel_consistency, losses.consistency(settings.confidence_threshold))
    loss = losses.several_labels if settings.task is Task.MULTI_LABEL else losses.cross_entropy
    return Lesson(learner.labels_and_pseudo_labels, loss)


@dataclass(frozen=True)
class Learner:
    """Prepares rows. Shapes: see ``PatientRows``; a patient has views_per_scan rows for each scan."""

    settings: TrainingSettings
    teacher: Teacher

    def labels_and_pseudo_labels(self, scans: PatientScans, generator: torch.Generator) -> PatientRows | None:
        """Known labels with weak views; where there is none, the teacher's label of the weak view with strong views.

        Weights: labelled scans share 1, the others share ``unlabelled_weight`` (1 for an unlabelled patient under
        privacy: there the ratio of the clips decides), times the class weight; an unsure scan weighs 0.
        """
        known = _any_label(scans.labels)
        targets, sure = scans.labels, known
        if self.settings.pseudo_labels and not bool(known.all()):
            answer = self._answers(self._view(scans.images, generator, strong=False))
            column = known.view(-1, *(1,) * (targets.ndim - 1))
            targets = torch.where(column, targets, answer.pseudo_label)
            sure = known | answer.confident
        if not bool(sure.any()):
            return None
        weights = self._shares(known) * sure * self._class_weights(targets)
        inputs = [self._views_for(scans.images, known, generator) for _ in range(self.settings.views_per_scan)]
        return self._repeated(inputs, targets, weights)

    def label_maps(self, scans: PatientScans, generator: torch.Generator) -> PatientRows | None:
        """Segmentation with an expert's label map: geometry moves image and map alike, intensity the image only."""
        known = _any_label(scans.labels)
        if not bool(known.any()):
            return None
        images, labels = scans.images[known], scans.labels[known]
        inputs, targets = [], []
        for _ in range(self.settings.views_per_scan):
            draws = draw_views(len(images), dimensions=self.settings.dimensions, generator=generator)
            inputs.append(apply_intensity(apply_geometry(images, draws, WEAK), draws, WEAK))
            moved = apply_geometry(labels.unsqueeze(1).float(), draws, WEAK, mode="nearest")
            targets.append(moved.squeeze(1).round().long())
        rows = len(images) * self.settings.views_per_scan
        return PatientRows(torch.cat(inputs), (torch.cat(targets),), torch.full((rows,), 1 / rows))

    def voxel_consistency(self, scans: PatientScans, generator: torch.Generator) -> PatientRows | None:
        """The teacher's probabilities on the weak view; the student sees the same geometry, stronger intensity."""
        inputs, targets = [], []
        for _ in range(self.settings.views_per_scan):
            draws = draw_views(len(scans.images), dimensions=self.settings.dimensions, generator=generator)
            moved = apply_geometry(scans.images, draws, WEAK)
            targets.append(self.teacher.probabilities(apply_intensity(moved, draws, WEAK)))
            inputs.append(apply_intensity(moved, draws, STRONG))
        rows = len(scans.images) * self.settings.views_per_scan
        return PatientRows(torch.cat(inputs), (torch.cat(targets),), torch.full((rows,), 1 / rows))

    def reconstruction(self, scans: PatientScans, generator: torch.Generator) -> PatientRows | None:
        """Weak views with hidden patches; the target is the whole view."""
        views = [self._view(scans.images, generator, strong=False) for _ in range(self.settings.views_per_scan)]
        whole = torch.cat(views)
        shown = hide_patches(whole, self.settings.hidden_share, generator=generator)
        return PatientRows(shown, (whole,), torch.full((len(whole),), 1 / len(whole)))

    def plain(self, scans: PatientScans, _: torch.Generator) -> PatientRows | None:
        """The scans as they are; the target is not used."""
        count = len(scans.images)
        return PatientRows(scans.images, (torch.zeros(count),), torch.full((count,), 1 / count))

    def _answers(self, weak_view: Tensor) -> pseudo_labels.PseudoLabels:
        several = self.settings.task is Task.MULTI_LABEL
        answer = pseudo_labels.several_classes if several else pseudo_labels.one_class
        probabilities = self.teacher.probabilities(weak_view, several_labels=several)
        return answer(probabilities, self.settings.confidence_threshold)

    def _shares(self, known: Tensor) -> Tensor:
        """Return (scans,) weights before classes: means over the labelled and over the other scans of this patient."""
        labelled, others = int(known.sum()), int((~known).sum())
        clip_decides = labelled == 0 and self.settings.placement is not Placement.NONE
        other_weight = 1.0 if clip_decides else self.settings.unlabelled_weight
        return torch.where(known, 1 / max(labelled, 1), other_weight / max(others, 1))

    def _class_weights(self, targets: Tensor) -> Tensor:
        if not self.settings.class_weights or self.settings.task is not Task.CLASSIFICATION:
            return torch.ones(len(targets))
        return torch.tensor(self.settings.class_weights)[targets.clamp(min=0).cpu()]

    def _views_for(self, images: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
        """Weak views of labelled scans, strong views of the others."""
        if bool(known.all()):
            return self._view(images, generator, strong=False)
        strong = self._view(images, generator, strong=True)
        if not bool(known.any()):
            return strong
        column = known.view(-1, *(1,) * (images.ndim - 1))
        return torch.where(column, self._view(images, generator, strong=False), strong)

    def _view(self, images: Tensor, generator: torch.Generator, *, strong: bool) -> Tensor:
        draws = draw_views(len(images), dimensions=self.settings.dimensions, generator=generator)
        return view(images, draws, STRONG if strong else WEAK)

    def _repeated(self, inputs: list[Tensor], targets: Tensor, weights: Tensor) -> PatientRows:
        views = len(inputs)
        repeated = targets.repeat(views, *(1,) * (targets.ndim - 1))
        return PatientRows(torch.cat(inputs), (repeated,), weights.repeat(views) / views)


def _any_label(labels: Tensor) -> Tensor:
    """Return which scans carry any label: (scans, ...) -> (scans,) bool."""
    return (labels != UNKNOWN).flatten(1).any(1) if labels.ndim > 1 else labels != UNKNOWN
