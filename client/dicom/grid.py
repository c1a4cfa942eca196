"""From the scanner's grid to the study's: one set of axes for every volume, one spacing, one size.

Axes of every volume in the cache, (depth, height, width): towards the head, towards the back, towards the left of the
patient ("HPL"). So neither the order of the files nor the direction of the scan matters, and a sagittal series lies
like an axial one. Values are resampled linearly with antialiasing, labels by the nearest voxel, on the same grid.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from highdicom import Volume, VolumeGeometry
from highdicom.spatial import get_closest_patient_orientation

from client.dicom.resize import Axis, Labels, Values, centred, resample, resample_labels
from client.dicom.series import Geometry
from client.dicom.settings import IngestSettings

TARGET = ("H", "P", "L")
AXIS_OF_LETTER = {"H": 0, "F": 0, "P": 1, "A": 1, "L": 2, "R": 2}
ROWS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Grid:
    """How a volume is resampled: one ``Axis`` and one final size for each of the scanner's axes."""

    geometry: Geometry
    axes: tuple[Axis, Axis, Axis]
    size_px: tuple[int, int, int]
    target_size_px: tuple[int, ...]

    @classmethod
    def for_study(cls, geometry: Geometry, settings: IngestSettings) -> "Grid":
        """Lay the study's spacing over the scanner's axes (which of them is depth depends on the orientation)."""
        roles = [AXIS_OF_LETTER[letter] for letter in _letters(geometry)]
        depth, rows, columns = (
            Axis.with_step(count, settings.spacing_mm[role] / mm)
            for count, mm, role in zip(geometry.shape, geometry.spacing_mm, roles, strict=True)
        )
        sizes = [settings.size_px[role] for role in roles]
        return cls(geometry, (depth, rows, columns), (sizes[0], sizes[1], sizes[2]), settings.size_px)

    @property
    def letters(self) -> tuple[str, ...]:
        """Where the scanner's axes (slice, row, column) lead, nearest: one of H, F, P, A, L, R each."""
        return _letters(self.geometry)

    @property
    def slice_size_px(self) -> tuple[int, int]:
        """Size of one resampled slice after what the study does not need is cut off."""
        _, rows, columns = self.axes
        return min(rows.count, self.size_px[1]), min(columns.count, self.size_px[2])

    def slice_values(self, values: Values) -> Values:
        """Resample one slice (rows, columns) and cut it."""
        return centred(resample(values, self.axes[1], self.axes[2]), self.slice_size_px, 0)

    def depth_values(self, stack: Values) -> Values:
        """Resample a stack of slices along the third axis; some rows at a time, to need little memory."""
        depth = self.axes[0]
        if depth.is_identity:
            return stack
        count, height, width = stack.shape
        result = np.empty((depth.count, height, width), np.float32)
        for top in range(0, height, ROWS_AT_ONCE):
            block = np.ascontiguousarray(stack[:, top : top + ROWS_AT_ONCE])
            flat = block.reshape(count, -1)
            whole = Axis(0.0, flat.shape[1], flat.shape[1])
            result[:, top : top + ROWS_AT_ONCE] = resample(flat, depth, whole).reshape(depth.count, -1, width)
        return result

    def label_map(self, labels: Labels) -> Labels:
        """Bring class numbers on the scanner's grid (slices, rows, columns) to the study's."""
        depth, rows, columns = self.axes
        picked = labels[depth.nearest()]
        slices = [centred(resample_labels(one, rows, columns), self.slice_size_px, 0) for one in picked]
        return self.oriented(np.stack(slices), 0)

    def oriented(self, stack: npt.NDArray[Any], fill: float) -> npt.NDArray[Any]:
        """Turn the axes to TARGET and cut to, or fill up to, the study's size."""
        volume = Volume(stack, self.geometry.affine, "PATIENT").to_patient_orientation(TARGET)
        return np.ascontiguousarray(centred(volume.array, self.target_size_px, fill))

    def source_geometry(self) -> VolumeGeometry:
        """Return the scanner's grid in highdicom's form, to hold segmentations against it."""
        return VolumeGeometry(self.geometry.affine, self.geometry.shape, "PATIENT")


def _letters(geometry: Geometry) -> tuple[str, ...]:
    return tuple(str(letter.value) for letter in get_closest_patient_orientation(geometry.affine))
