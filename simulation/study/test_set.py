"""The public test images: prepared as an ingest prepares a hospital's, and how a model does on them.

They lie outside the protocol: no hospital holds them, nothing is spent on them, and no study could choose by them.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.dicom.settings import settings_for
from client.final_model.outlined_slices import outlined_slice
from client.final_model.structure_measures import figures_of, measured
from client.learning.sliding_window import answered_label_map
from client.learning.whole_scan import WholeScan
from common.plan.plan import StudyPlan
from common.plan.task import TaskKind
from simulation.errors import ScenarioInvalidError
from simulation.hospitals.public_arrays import read_archive
from simulation.report.facts import Estimate, Picture, PublicScore
from simulation.report.intervals import auc_estimate, bootstrap_estimate, calibration_curve, roc_curve, share_estimate
from simulation.study.run_folder import features_of
from simulation.study.test_preparation import Preparation

IMAGES_AT_ONCE = 64
PICTURES = 6  # in a report
VOXELS_AT_ONCE = (
    1 << 19
)  # of images that go through the network together: layers of a U-Net or a residual network are wide

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PublicTestSet:
    """Images that no hospital holds, as the plan's network takes them.

    Shapes: images (N, channels, *size) float32 in [0, 1], or features of them (N, features); labels (N,) int64;
    label_maps (N, *size) or None. ``window``: of a network that sees patches, their size. ``spacing_mm``, ``lesions``:
    of the plan.
    """

    images: Tensor
    labels: Tensor
    label_maps: Tensor | None
    kind: TaskKind
    classes: tuple[str, ...]
    window: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    lesions: tuple[str, ...] = ()

    def predict(self, network: nn.Module) -> Tensor:
        """Return the network's logits, a few images at a time: (N, classes, ...)."""
        with torch.no_grad():
            at_once = max(1, min(IMAGES_AT_ONCE, VOXELS_AT_ONCE // math.prod(self.images.shape[2:])))
            return torch.cat([network(part) for part in torch.split(self.images, at_once)])

    def judge(self, network: nn.Module, *, curve: bool = False) -> PublicScore:
        """Return the network's AUC (mean over classes where there are several) or mean Dice, with interval.

        Two classes: DeLong's interval; otherwise the bootstrap's. ``curve``: also calibration, and ROC of two classes;
        of a segmentation structures and pictures.
        """
        if self.kind is TaskKind.SEGMENTATION and self.window:
            scans = [WholeScan(image.numpy(), None) for image in self.images]
            answers = [torch.from_numpy(answered_label_map(network, scan, self.window)[0]) for scan in scans]
            stacked = torch.stack(answers)
            return self._in_detail(stacked) if curve else self.judge_label_maps(stacked)
        logits = self.predict(network)
        if self.kind is TaskKind.SEGMENTATION:
            answered = logits.argmax(1)
            return self._in_detail(answered) if curve else self.judge_label_maps(answered)
        scores, labels = torch.softmax(logits, 1).double().numpy(), self.labels.numpy()
        shares = self._shares(scores.argmax(1), labels)
        calibration = tuple(calibration_curve(scores.max(1), scores.argmax(1) == labels)) if curve else ()
        if len(self.classes) == 2:
            points = tuple(roc_curve(scores[:, 1], labels == 1)) if curve else ()
            estimate = auc_estimate(scores[:, 1], labels == 1)
            return PublicScore("AUC", estimate, len(labels), shares, points, calibration)

        def mean_auc(rows: NDArray[np.intp]) -> float:
            present = [
                index for index in range(len(self.classes)) if 2 <= (labels[rows] == index).sum() < len(rows) - 1
            ]
            areas = [auc_estimate(scores[rows, index], labels[rows] == index).value for index in present]
            return float(np.mean(areas)) if areas else float("nan")

        estimate = bootstrap_estimate(mean_auc, len(labels))
        return PublicScore("AUC", estimate, len(labels), shares, (), calibration)

    def judge_label_maps(self, answered: Tensor) -> PublicScore:
        """Return the mean Dice of label maps (N, *size) int64, of all structures and of each, with intervals.

        A structure that neither expert nor answer has in an image does not count there.
        """
        dice = self._dice(answered)

        def mean_of(values: Values) -> Estimate:
            return bootstrap_estimate(lambda rows: float(np.nanmean(values[rows])), len(values))

        by_class = {name: mean_of(dice[:, row]) for row, name in enumerate(self.classes[1:]) if _any(dice[:, row])}
        return PublicScore("Dice", mean_of(torch.from_numpy(dice).nanmean(1).numpy()), len(dice), dice=by_class)

    def _in_detail(self, answered: Tensor) -> PublicScore:
        """Return what ``judge_label_maps`` does, with structures, and pictures from the worst to the best image."""
        assert self.label_maps is not None  # noqa: S101 (for the types: segmentation always has them)
        score, dice = self.judge_label_maps(answered), np.nanmean(self._dice(answered), axis=1)
        experts, answers = self.label_maps.numpy(), answered.numpy()
        structures = {}
        for index, name in enumerate(self.classes[1:], start=1):
            is_lesion = name in self.lesions
            pairs = zip(answers == index, experts == index, strict=True)
            found = [measured(*pair, self.spacing_mm, is_lesion=is_lesion) for pair in pairs]
            known = [one for one in found if one is not None]
            if known:
                structures[name] = figures_of(known, self.spacing_mm, is_lesion=is_lesion)
        ranked = [row for row in np.argsort(dice, kind="stable") if np.isfinite(dice[row])]
        chosen = [ranked[place] for place in np.unique(np.linspace(0, len(ranked) - 1, PICTURES).astype(int))]
        images = self.images.numpy().squeeze(1) if self.images.shape[1] == 1 else self.images.numpy()
        pictures = (Picture(outlined_slice(images[n], experts[n], answers[n]), float(dice[n])) for n in chosen)
        return replace(score, structures=structures, pictures=tuple(pictures))

    def _shares(self, answered: NDArray[np.intp], labels: NDArray[np.int64]) -> dict[str, Estimate]:
        """Return each class's share of images answered right; classes without images are left out."""
        right = answered == labels
        return {
            name: share_estimate(float(right[labels == index].sum()), float((labels == index).sum()))
            for index, name in enumerate(self.classes)
            if (labels == index).any()
        }

    def _dice(self, answered: Tensor) -> Values:
        """Return each image's Dice of each structure, NaN where neither expert nor answer has it: (N, classes - 1)."""
        assert self.label_maps is not None  # noqa: S101 (for the types: segmentation always has them)
        rows = []
        for index in range(1, len(self.classes)):
            ours, theirs = answered == index, self.label_maps == index
            sizes = (ours.flatten(1).sum(1) + theirs.flatten(1).sum(1)).double()
            overlap = 2 * (ours & theirs).flatten(1).sum(1).double()
            rows.append(torch.where(sizes > 0, overlap / sizes.clamp(min=1), torch.nan))
        dice: Values = torch.stack(rows, 1).numpy()
        return dice


def _any(values: Values) -> bool:
    return bool(np.isfinite(values).any())


def load_test_set(path: Path, plan: StudyPlan) -> PublicTestSet:
    """Read ``test.npz`` of a run as the plan's network takes it: prepared, or the features of what was prepared.

    Raises: as ``prepared_test_set``; ScenarioInvalidError for features of other images.
    """
    tests = prepared_test_set(path, plan)
    if plan.network.encoder is None:
        return tests
    try:
        features = np.load(features_of(path), allow_pickle=False)
    except (OSError, ValueError):
        features = np.zeros(0)
    if features.shape != (len(tests.images), plan.network.features):
        raise ScenarioInvalidError(f"{features_of(path)}: not the features of the test images; build the run anew")
    return replace(tests, images=torch.from_numpy(features.astype(np.float32)))


def prepared_test_set(path: Path, plan: StudyPlan) -> PublicTestSet:
    """Read ``test.npz`` of a run and prepare its images for the plan.

    Raises: FileUnreadableError; ScenarioInvalidError when it is empty or has no segmentations for a segmentation task.
    """
    arrays = read_archive(path)
    slice_mm, row_mm, column_mm = np.asarray(arrays.get("spacing_mm", np.ones(3)), np.float64).tolist()
    preparation = Preparation(settings_for(plan.task, plan.image), (slice_mm, row_mm, column_mm))
    pictures = list(arrays["images"])
    maps = arrays.get("segmentations")
    if not pictures or (maps is None and plan.task.kind is TaskKind.SEGMENTATION):
        raise ScenarioInvalidError("the test set is empty or lacks segmentations; take another source of hospitals")
    segmented = plan.task.kind is TaskKind.SEGMENTATION and maps is not None
    return PublicTestSet(
        torch.from_numpy(np.stack([preparation.image(picture) for picture in pictures])).view(
            -1, *plan.image.input_shape
        ),
        torch.from_numpy(np.asarray(arrays["labels"], np.int64).reshape(len(pictures))),
        torch.from_numpy(np.stack([preparation.label_map(one) for one in np.asarray(maps)])) if segmented else None,
        plan.task.kind,
        plan.task.classes,
        plan.image.patch_px,
        plan.image.spacing_mm,
        plan.task.lesions,
    )
