"""Patients as the training sees them: the data set's index is the patient, never the scan.

A patient with any label belongs to the labelled stratum with all scans, otherwise to the unlabelled one; strata are
fixed when the plan is approved. Keys are the site's keyed hashes; they stay in the building.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.dicom.record import Stratum
from client.learning.whole_scan import UNKNOWN, WholeScan

__all__ = ["ROW_AXES", "UNKNOWN", "ArrayPatients", "NoPatients", "PatientScans", "Patients", "Scans", "labelled_scans"]

ROW_AXES: Final = 2  # of one scan's features: rows, features; an image has channels and two or three axes more


class Scans(Protocol):
    """One patient's scans, in memory (``PatientScans``) or wherever they lie; nothing is read before it is asked for.

    A scan that cannot be read is counted by ``len`` and left out of everything else: it weighs nothing.
    """

    def __len__(self) -> int:
        """Return the number of scans on record."""

    def chosen(self, indices: Tensor) -> "PatientScans":
        """Return the scans at ``indices`` (n,) int64, and read no other."""

    def blocks(self, most: int) -> "Iterator[PatientScans]":
        """Yield all scans in their order, at most ``most`` (1 or more) at a time: memory for no more is taken."""

    def whole(self) -> "PatientScans":
        """Return all scans in memory, however many there are."""

    def as_it_lies(self, index: int) -> WholeScan | None:
        """Return one scan for whoever cuts parts of it; None where it cannot be read."""


@dataclass(frozen=True)
class PatientScans:
    """What one patient contributes to a step.

    Shapes: images (scans, channels, *size) float32 in [0, 1], or what a public encoder made of them, if
    ``are_features``: (scans, rows, features) float32, the unchanged scan first, then its weak views; labels int64:
    (scans,) class index for classification, (scans, classes) 0 or 1 for several labels at once, (scans, *size) class of
    each voxel for segmentation; ``UNKNOWN`` where there is no label.
    """

    images: Tensor
    labels: Tensor
    are_features: bool = False

    @property
    def unchanged(self) -> Tensor:
        """Return what the network takes of each scan as it is: (scans, channels, *size) or (scans, features)."""
        return self.images[:, 0] if self.are_features else self.images

    @property
    def labelled(self) -> Tensor:
        """Return which scans carry any label: (scans,) bool."""
        return labelled_scans(self.labels)

    def __len__(self) -> int:
        return len(self.images)

    def chosen(self, indices: Tensor) -> "PatientScans":
        """Return the scans at ``indices`` (n,) int64. Raises: ValueError unless each image has its label."""
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images have {len(self.labels)} labels")
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def blocks(self, most: int) -> "Iterator[PatientScans]":
        """Yield the scans, at most ``most`` at a time."""
        for start in range(0, len(self), most):
            yield replace(self, images=self.images[start : start + most], labels=self.labels[start : start + most])

    def whole(self) -> "PatientScans":
        """Return these scans."""
        return self

    def as_it_lies(self, index: int) -> WholeScan:
        """Return one scan for whoever cuts parts of it."""
        return WholeScan(self.images[index].numpy(), self.labels[index].numpy())

    def to(self, device: torch.device) -> "PatientScans":
        """Return the scans on ``device``."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


def labelled_scans(labels: Tensor) -> Tensor:
    """Return which scans carry any label: (scans, ...) -> (scans,) bool."""
    known = labels != UNKNOWN
    return known.flatten(1).any(1) if known.ndim > 1 else known


class Patients(Protocol):
    """A site's patients of one study; both methods depend on the frozen split only."""

    def keys(self, stratum: Stratum) -> Sequence[str]:
        """Return the patients of a stratum in a fixed order."""

    def read(self, patient_key: str) -> Scans:
        """Return one patient's scans; a patient may have none."""


class NoPatients:
    """Nobody: for what is tried before there is anybody."""

    def keys(self, stratum: Stratum) -> list[str]:
        """Return nobody."""
        del stratum
        return []

    def read(self, patient_key: str) -> PatientScans:
        """Raise KeyError: nobody is here."""
        raise KeyError(patient_key)


class ArrayPatients:
    """Patients held in memory; for simulation, experiments and tests.

    Shapes: images (scans, *size) or (scans, channels, *size), uint8 (divided by 255) or float32, or (scans, rows,
    features) float32 if ``are_features``; labels as in ``PatientScans``; owners: the patient key of each scan.
    Raises: ValueError if the three do not have one row for each scan.
    """

    def __init__(
        self,
        images: NDArray[np.generic],
        labels: NDArray[np.integer],
        owners: Sequence[str],
        *,
        dimensions: int,
        are_features: bool = False,
    ) -> None:
        if not len(images) == len(labels) == len(owners):
            raise ValueError(f"{len(images)} images, {len(labels)} labels, {len(owners)} owners: must be equal")
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
        is_grey = scaled.ndim == dimensions + 1 and not are_features
        self._images, self._are_features = scaled.unsqueeze(1) if is_grey else scaled, are_features
        self._labels = torch.from_numpy(np.ascontiguousarray(labels)).long()
        self._rows: dict[str, list[int]] = {}
        for row, owner in enumerate(owners):
            self._rows.setdefault(owner, []).append(row)
        self._strata: dict[Stratum, list[str]] = {stratum: [] for stratum in Stratum}
        for key, rows in self._rows.items():
            labelled = bool((self._labels[rows] != UNKNOWN).any())
            self._strata[Stratum.LABELLED if labelled else Stratum.UNLABELLED].append(key)

    def keys(self, stratum: Stratum) -> list[str]:
        """Return the patients of a stratum in the order of their first scan."""
        return self._strata[stratum]

    def read(self, patient_key: str) -> PatientScans:
        """Return one patient's scans."""
        rows = self._rows[patient_key]
        return PatientScans(self._images[rows], self._labels[rows], self._are_features)
