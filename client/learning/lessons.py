"""What one patient's scans teach, for each method: rows of (view, target, weight) and the loss they go through.

Everything here is a function of *one* patient's record, of public values (settings, released teacher) and of that
patient's own random numbers. Two patients' scans are never in one tensor here, because kernels choose their arithmetic
by the shape of the whole: a patient beside another would change the last bit of the other's view, and a network made
for it turns a bit into a clipping norm (decision 0022). The neighbour replay test watches it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from client.dicom.record import Stratum
from client.learning import losses, pseudo_labels
from client.learning.patients import PatientScans
from client.learning.round_randomness import PatientRandomness
from client.learning.second_moments import centred_labels
from client.learning.teacher import Teacher
from client.learning.training_settings import Method, Placement, Task, TrainingSettings
from client.learning.views import (
    STRONG,
    WEAK,
    WIDE,
    ViewDraws,
    ViewRange,
    apply_geometry,
    apply_intensity,
    chosen_rows,
    draw_views,
    hide_patches,
    view,
)
from client.learning.voxel_losses import voxel_loss
from client.private_gradients.stacks import PatientRows

Rows = Callable[[PatientScans, PatientRandomness], PatientRows]


@dataclass(frozen=True)
class Lesson:
    """How a stratum's patients teach: ``rows`` prepares one patient with at least one scan; ``loss`` judges a row."""

    rows: Rows
    loss: losses.ScanLoss


def lesson_for(stratum: Stratum, settings: TrainingSettings, teacher: Teacher | None) -> Lesson:
    """Return the lesson of a stratum in this phase. ``teacher``: None for methods that ask none."""
    learner, labelled = Learner(settings, teacher), stratum is Stratum.LABELLED
    if settings.both_strata:
        return _lesson_of_all(learner, labelled=labelled)
    if settings.method is Method.PRIOR:
        return Lesson(learner.whole_label_maps, losses.chosen_voxels)
    if settings.task is Task.SEGMENTATION:
        if labelled:
            return Lesson(learner.label_maps, voxel_loss(settings.loss, settings.class_weights))
        return Lesson(learner.voxel_consistency, losses.consistency(settings.confidence_threshold))
    loss = losses.several_labels if settings.task is Task.MULTI_LABEL else losses.cross_entropy
    return Lesson(learner.labels_and_pseudo_labels, loss)


def _lesson_of_all(learner: "Learner", *, labelled: bool) -> Lesson:
    """Return the lesson of a method in which unlabelled patients need no teacher."""
    if learner.settings.method is Method.RECONSTRUCTION:
        return Lesson(learner.reconstruction, losses.reconstruction)
    if learner.settings.method is Method.STANDARDISE:
        return Lesson(learner.plain, losses.as_given)
    if labelled:
        return Lesson(learner.labelled_moments, losses.products_with_labels)
    return Lesson(learner.unlabelled_moments, losses.first_output)


@dataclass(frozen=True)
class Learner:
    """Prepares rows. A patient has views_per_scan rows for each scan; a row of weight 0 contributes exactly nothing."""

    settings: TrainingSettings
    teacher: Teacher | None

    def labels_and_pseudo_labels(self, patient: PatientScans, randomness: PatientRandomness) -> PatientRows:
        """Known labels with weak views; where there is none, the teacher's label of the weak view with strong views.

        Weights: the patient's labelled scans share 1, the others share ``unlabelled_weight`` (1 for an unlabelled
        patient under privacy: there the ratio of the clips decides), times the class weight; an unsure scan weighs 0.
        """
        known = patient.labelled
        targets, sure = patient.labels, known
        if self.settings.pseudo_labels and not bool(known.all()):
            answer = self._answers(self._view(patient, randomness, "view for the teacher", WEAK))
            targets = torch.where(_column(known, targets), targets, answer.pseudo_label)
            sure = known | answer.confident
        shares = _shares(known) + self._other_weight(known) * _shares(~known)
        weights = shares * sure * self._class_weights(targets)
        numbers = range(self.settings.views_per_scan)
        views = [self._weak_or_strong(patient, known, randomness, number) for number in numbers]
        return _rows(views, [targets] * len(views), weights)

    def label_maps(self, patient: PatientScans, randomness: PatientRandomness) -> PatientRows:
        """Segmentation with an expert's label map: geometry moves image and map alike, intensity the image only."""
        views, targets = [], []
        for draws in self._all_draws(patient, randomness):
            views.append(view(patient.images, draws, self._weak))
            moved = apply_geometry(patient.labels.unsqueeze(1).float(), draws, self._weak, mode="nearest")
            targets.append(moved.squeeze(1).round().long())
        return _rows(views, targets, _shares(patient.labelled))

    def whole_label_maps(self, patient: PatientScans, _: PatientRandomness) -> PatientRows:
        """The scans with an expert's label map as they are; the others weigh nothing."""
        return _rows([patient.images], [patient.labels], _shares(patient.labelled))

    def voxel_consistency(self, patient: PatientScans, randomness: PatientRandomness) -> PatientRows:
        """The teacher's probabilities on the weak view; the student sees the same geometry, stronger intensity.

        Weights: as ``labels_and_pseudo_labels`` has them for an unlabelled patient.
        """
        views, targets = [], []
        for draws in self._all_draws(patient, randomness):
            moved = apply_geometry(patient.images, draws, self._weak)
            targets.append(self._ask(apply_intensity(moved, draws, self._weak)))
            views.append(apply_intensity(moved, draws, replace(STRONG, bias=self._weak.bias)))
        return _rows(views, targets, _equal_shares(patient) * self._other_weight(patient.labelled))

    def reconstruction(self, patient: PatientScans, randomness: PatientRandomness) -> PatientRows:
        """Weak views with hidden patches; the target is the whole view."""
        views, targets = [], []
        for draws in self._all_draws(patient, randomness):
            targets.append(view(patient.images, draws, WEAK))
            views.append(hide_patches(targets[-1], self.settings.hidden_share, draws))
        return _rows(views, targets, _equal_shares(patient))

    def plain(self, patient: PatientScans, _: PatientRandomness) -> PatientRows:
        """The scans as they are; the target is not used."""
        targets = torch.zeros(len(patient.images), device=patient.images.device)
        return _rows([patient.unchanged], [targets], _equal_shares(patient))

    def labelled_moments(self, patient: PatientScans, _: PatientRandomness) -> PatientRows:
        """The labelled scans as they are, with centred labels; together they weigh the clipping norm."""
        targets = centred_labels(patient.labels, self.settings.classes)
        weights = self.settings.clipping_norm * _shares(patient.labelled)
        return _rows([patient.unchanged], [targets], weights)

    def unlabelled_moments(self, patient: PatientScans, _: PatientRandomness) -> PatientRows:
        """All scans as they are; together they weigh the unlabelled clipping norm. The target is not used."""
        settings, count = self.settings, len(patient.images)
        targets = torch.zeros(count, settings.classes, device=patient.images.device)
        weights = settings.clipping_norm * settings.unlabelled_clip_ratio * _equal_shares(patient)
        return _rows([patient.unchanged], [targets], weights)

    @property
    def _weak(self) -> ViewRange:
        """How far the weak views of a segmentation go, as the plan chose."""
        return replace(WIDE if self.settings.wide_views else WEAK, mirrored=self.settings.mirrored)

    def _answers(self, weak_view: Tensor) -> pseudo_labels.PseudoLabels:
        several = self.settings.task is Task.MULTI_LABEL
        answer = pseudo_labels.several_classes if several else pseudo_labels.one_class
        probabilities = self._ask(weak_view, several_labels=several)
        return answer(probabilities, self.settings.confidence_threshold)

    def _ask(self, views: Tensor, *, several_labels: bool = False) -> Tensor:
        if self.teacher is None:
            raise TypeError(f"method {self.settings.method} asks a teacher, and there is none")
        return self.teacher.probabilities(views, several_labels=several_labels)

    def _other_weight(self, known: Tensor) -> float:
        """Return what the scans without a label share: the loss weight, or 1 where a clip of its own decides."""
        own_clip = self.settings.placement is not Placement.NONE and not bool(known.any())
        return 1.0 if own_clip else self.settings.unlabelled_weight

    def _class_weights(self, targets: Tensor) -> Tensor:
        if not self.settings.class_weights or self.settings.task is not Task.CLASSIFICATION:
            return torch.ones(len(targets), device=targets.device)
        weights = torch.tensor(self.settings.class_weights, device=targets.device)
        return weights[targets.clamp(min=0)]

    def _weak_or_strong(
        self, patient: PatientScans, known: Tensor, randomness: PatientRandomness, number: int
    ) -> Tensor:
        """Return view ``number`` of each scan: weak of labelled scans, strong of the others."""

        def made(strength: str, limits: ViewRange) -> Tensor:
            return self._view(patient, randomness, f"{strength} view {number}", limits)

        if bool(known.all()):
            return made("weak", WEAK)
        strong = made("strong", STRONG)
        return torch.where(_column(known, strong), made("weak", WEAK), strong) if bool(known.any()) else strong

    def _view(self, patient: PatientScans, randomness: PatientRandomness, purpose: str, limits: ViewRange) -> Tensor:
        """Return one view of each scan; of features one of the rows that were made of weak views beforehand."""
        if patient.are_features:
            return chosen_rows(patient.images, lambda: randomness.generator(purpose))
        return view(patient.images, self._draws(patient, randomness, purpose), limits)

    def _all_draws(self, patient: PatientScans, randomness: PatientRandomness) -> list[ViewDraws]:
        numbers = range(self.settings.views_per_scan)
        return [self._draws(patient, randomness, f"view {number}") for number in numbers]

    def _draws(self, patient: PatientScans, randomness: PatientRandomness, purpose: str) -> ViewDraws:
        """Draw one view of every scan; each purpose has a generator of its own."""
        generator = randomness.generator(purpose)
        return draw_views(len(patient.images), dimensions=self.settings.dimensions, generator=generator)


def _column(marked: Tensor, like: Tensor) -> Tensor:
    """Shape (scans,) so that it chooses between tensors (scans, ...)."""
    return marked.view(-1, *(1,) * (like.ndim - 1))


def _shares(taking_part: Tensor) -> Tensor:
    """Return 1 / number of scans that take part, where they do, else 0: (scans,) bool -> (scans,)."""
    part = taking_part.float()
    return part / part.sum().clamp(min=1)


def _equal_shares(patient: PatientScans) -> Tensor:
    return _shares(torch.ones(len(patient.images), dtype=torch.bool, device=patient.images.device))


def _rows(views: Sequence[Tensor], targets: Sequence[Tensor], weights: Tensor) -> PatientRows:
    """Put the views under one another: views and targets each (scans, ...), weights (scans,) shared between views."""
    return PatientRows(torch.cat(list(views)), (torch.cat(list(targets)),), weights.repeat(len(views)) / len(views))
