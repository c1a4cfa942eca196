"""What each patient's scans teach, for each method: rows of (view, target, weight) and the loss they go through.

Everything here is a function of one patient's record, of public values (settings, released teacher) and of that
patient's own random numbers. Patients are worked on side by side for speed, but no operation looks from one scan to
another's. This is the line that nothing may cross; the neighbour replay test watches it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from client.dicom.record import Stratum
from client.learning import losses, pseudo_labels
from client.learning.patients import PatientScans, labelled_scans
from client.learning.teacher import Teacher
from client.learning.training_settings import Method, Placement, Task, TrainingSettings
from client.learning.views import (
    STRONG,
    WEAK,
    ViewDraws,
    apply_geometry,
    apply_intensity,
    draw_views,
    hide_patches,
    joined,
    view,
)
from client.private_gradients.stacks import PatientRows


@dataclass(frozen=True)
class Batch:
    """Scans of several patients under one another, with each patient's own source of (public) randomness.

    Shapes: images (scans, 1, *size), labels (scans, ...); counts: scans of each patient, in order, each at least 1.
    """

    images: Tensor
    labels: Tensor
    counts: list[int]
    generators: Sequence[torch.Generator]

    @classmethod
    def of(cls, patients: Sequence[PatientScans], generators: Sequence[torch.Generator]) -> "Batch":
        """Join patients, each with at least one scan."""
        images = torch.cat([patient.images for patient in patients])
        labels = torch.cat([patient.labels for patient in patients])
        return cls(images, labels, [len(patient.images) for patient in patients], generators)

    def draws(self, dimensions: int) -> ViewDraws:
        """Draw one view of every scan, each patient from their own generator."""
        pairs = zip(self.counts, self.generators, strict=True)
        return joined([draw_views(count, dimensions=dimensions, generator=generator) for count, generator in pairs])

    def shares(self, taking_part: Tensor) -> Tensor:
        """Return 1 / number of a patient's scans that take part, where they do, else 0: (scans,) bool -> (scans,)."""
        by_patient = torch.split(taking_part.float(), self.counts)
        return torch.cat([part / part.sum().clamp(min=1) for part in by_patient])

    def any_of_patient(self, scans: Tensor) -> Tensor:
        """Return for each scan whether any scan of the same patient is marked: (scans,) bool -> (scans,) bool."""
        return torch.cat([part.any().expand(len(part)) for part in torch.split(scans, self.counts)])


Rows = Callable[[Batch], list[PatientRows]]


@dataclass(frozen=True)
class Lesson:
    """How a stratum's patients teach: ``rows`` prepares them, one entry a patient in order; ``loss`` judges a row."""

    rows: Rows
    loss: losses.ScanLoss


def lesson_for(stratum: Stratum, settings: TrainingSettings, teacher: Teacher | None) -> Lesson:
    """Return the lesson of a stratum in this phase. ``teacher``: None for methods that ask none."""
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
    """Prepares rows. A patient has views_per_scan rows for each scan; a row of weight 0 contributes exactly nothing."""

    settings: TrainingSettings
    teacher: Teacher | None

    def labels_and_pseudo_labels(self, batch: Batch) -> list[PatientRows]:
        """Known labels with weak views; where there is none, the teacher's label of the weak view with strong views.

        Weights: a patient's labelled scans share 1, the others share ``unlabelled_weight`` (1 for an unlabelled patient
        under privacy: there the ratio of the clips decides), times the class weight; an unsure scan weighs 0.
        """
        known = labelled_scans(batch.labels)
        targets, sure = batch.labels, known
        if self.settings.pseudo_labels and not bool(known.all()):
            answer = self._answers(self._view(batch, strong=False))
            column = known.view(-1, *(1,) * (targets.ndim - 1))
            targets = torch.where(column, targets, answer.pseudo_label)
            sure = known | answer.confident
        shares = batch.shares(known) + self._other_weight(batch, known) * batch.shares(~known)
        weights = shares * sure * self._class_weights(targets)
        views = [self._views_for(batch, known) for _ in range(self.settings.views_per_scan)]
        return self._by_patient(batch, views, [targets] * len(views), weights)

    def label_maps(self, batch: Batch) -> list[PatientRows]:
        """Segmentation with an expert's label map: geometry moves image and map alike, intensity the image only."""
        views, targets = [], []
        for _ in range(self.settings.views_per_scan):
            draws = batch.draws(self.settings.dimensions)
            views.append(apply_intensity(apply_geometry(batch.images, draws, WEAK), draws, WEAK))
            moved = apply_geometry(batch.labels.unsqueeze(1).float(), draws, WEAK, mode="nearest")
            targets.append(moved.squeeze(1).round().long())
        return self._by_patient(batch, views, targets, batch.shares(labelled_scans(batch.labels)))

    def voxel_consistency(self, batch: Batch) -> list[PatientRows]:
        """The teacher's probabilities on the weak view; the student sees the same geometry, stronger intensity."""
        views, targets = [], []
        for _ in range(self.settings.views_per_scan):
            draws = batch.draws(self.settings.dimensions)
            moved = apply_geometry(batch.images, draws, WEAK)
            targets.append(self._ask(apply_intensity(moved, draws, WEAK)))
            views.append(apply_intensity(moved, draws, STRONG))
        return self._by_patient(batch, views, targets, self._equal(batch))

    def reconstruction(self, batch: Batch) -> list[PatientRows]:
        """Weak views with hidden patches; the target is the whole view."""
        views, targets = [], []
        for _ in range(self.settings.views_per_scan):
            draws = batch.draws(self.settings.dimensions)
            targets.append(view(batch.images, draws, WEAK))
            views.append(hide_patches(targets[-1], self.settings.hidden_share, draws))
        return self._by_patient(batch, views, targets, self._equal(batch))

    def plain(self, batch: Batch) -> list[PatientRows]:
        """The scans as they are; the target is not used."""
        targets = torch.zeros(len(batch.images), device=batch.images.device)
        return self._by_patient(batch, [batch.images], [targets], self._equal(batch))

    def _answers(self, weak_view: Tensor) -> pseudo_labels.PseudoLabels:
        several = self.settings.task is Task.MULTI_LABEL
        answer = pseudo_labels.several_classes if several else pseudo_labels.one_class
        probabilities = self._ask(weak_view, several_labels=several)
        return answer(probabilities, self.settings.confidence_threshold)

    def _ask(self, views: Tensor, *, several_labels: bool = False) -> Tensor:
        if self.teacher is None:
            raise TypeError(f"method {self.settings.method} asks a teacher, and there is none")
        return self.teacher.probabilities(views, several_labels=several_labels)

    def _other_weight(self, batch: Batch, known: Tensor) -> Tensor:
        """Return what the scans without a label share: the loss weight, or 1 where a clip of its own decides."""
        loss_weight = torch.full(known.shape, self.settings.unlabelled_weight, device=known.device)
        if self.settings.placement is Placement.NONE:
            return loss_weight
        return torch.where(batch.any_of_patient(known), loss_weight, 1.0)

    def _class_weights(self, targets: Tensor) -> Tensor:
        if not self.settings.class_weights or self.settings.task is not Task.CLASSIFICATION:
            return torch.ones(len(targets), device=targets.device)
        weights = torch.tensor(self.settings.class_weights, device=targets.device)
        return weights[targets.clamp(min=0)]

    def _views_for(self, batch: Batch, known: Tensor) -> Tensor:
        """Weak views of labelled scans, strong views of the others."""
        if bool(known.all()):
            return self._view(batch, strong=False)
        strong = self._view(batch, strong=True)
        if not bool(known.any()):
            return strong
        column = known.view(-1, *(1,) * (strong.ndim - 1))
        return torch.where(column, self._view(batch, strong=False), strong)

    def _view(self, batch: Batch, *, strong: bool) -> Tensor:
        return view(batch.images, batch.draws(self.settings.dimensions), STRONG if strong else WEAK)

    def _equal(self, batch: Batch) -> Tensor:
        return batch.shares(torch.ones(len(batch.images), dtype=torch.bool, device=batch.images.device))

    def _by_patient(
        self, batch: Batch, views: Sequence[Tensor], targets: Sequence[Tensor], weights: Tensor
    ) -> list[PatientRows]:
        """Cut views, targets and weights up by patient; the weights are shared between the views."""
        view_parts = [torch.split(part, batch.counts) for part in views]
        target_parts = [torch.split(part, batch.counts) for part in targets]
        rows = []
        for patient, weight in enumerate(torch.split(weights, batch.counts)):
            inputs = torch.cat([parts[patient] for parts in view_parts])
            answers = torch.cat([parts[patient] for parts in target_parts])
            rows.append(PatientRows(inputs, (answers,), weight.repeat(len(views)) / len(views)))
        return rows
