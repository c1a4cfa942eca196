"""Test images as a hospital's ingest would have made them: its own functions, on the values that a file would give.

A test holds both against each other to the bit, for pictures and volumes. What the format costs (12 bits where the
drawing is finer) is done here too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.dicom.grid import Grid
from client.dicom.instance import axes_of, picture_levels
from client.dicom.intensity import FULL_SCALE, window_of
from client.dicom.resize import centred, resample_labels
from client.dicom.series import Geometry
from client.dicom.settings import IngestSettings
from client.dicom.volume import volume_levels
from common.plan.task import Modality

Values = NDArray[np.float32]
BYTE, STORED, CT_STORED = 255, 4095, 2048  # highest stored value: of bytes, of drawn values in 12 bits, of drawn CT
CT_LOWEST_HU, CT_SPAN_HU = -1024.0, 2048.0  # what ``simulation.hospitals.hospital`` writes for [0, 1]


@dataclass(frozen=True)
class Preparation:
    """How the test images of a run become what the network sees. ``spacing_mm``: (slice, row, column) of a source."""

    settings: IngestSettings
    spacing_mm: tuple[float, float, float]

    def image(self, image: NDArray[np.generic]) -> Values:
        """Return float32 in [0, 1]: (H, W) or (H, W, 3) or (D, H, W) -> (channels, *size) or (D, H, W)."""
        values, grey_scale = self._values(image)
        if self.settings.dimensions == 3:
            grid = self._grid(values.shape)
            stack = np.stack([grid.slice_values(plane) for plane in values])
            levels, _, _ = volume_levels(grid, stack, grey_scale, self.settings)
        else:
            window = window_of(values, None, grey_scale, self.settings)
            rows, columns, _ = axes_of((values.shape[0], values.shape[1]), self.spacing_mm[1:], self.settings)
            planes = np.moveaxis(values, 2, 0) if values.ndim == 3 else [values]
            levels = np.stack([picture_levels(plane, (rows, columns), window, self.settings) for plane in planes])
        return np.divide(levels, np.float32(FULL_SCALE), dtype=np.float32)

    def label_map(self, label_map: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return class numbers on the grid of ``image``."""
        if self.settings.dimensions == 3:
            return self._grid(label_map.shape).label_map(label_map).astype(np.int64)
        rows, columns, _ = axes_of((label_map.shape[0], label_map.shape[1]), self.spacing_mm[1:], self.settings)
        return centred(resample_labels(label_map, rows, columns), self.settings.size_px, 0).astype(np.int64)

    def _values(self, image: NDArray[np.generic]) -> tuple[Values, tuple[float, float]]:
        """Return values as a file's rescale gives them, and the ends of its grey scale."""
        is_ct, exact = self.settings.modalities == (Modality.CT,), image.dtype == np.uint8
        drawn = CT_STORED if is_ct else STORED
        stored = image if exact else np.rint(np.clip(image, 0, 1) * np.float32(drawn))
        slope = CT_SPAN_HU / BYTE if is_ct and exact else 1.0
        lowest = CT_LOWEST_HU if is_ct else 0.0
        values = np.asarray(stored, np.float32)
        if slope != 1:
            values = values * np.float32(slope)
        if lowest:
            values = values + np.float32(lowest)
        highest = BYTE if exact else STORED
        return values, (lowest, highest * slope + lowest)

    def _grid(self, shape: tuple[int, ...]) -> Grid:
        """Return the study's grid over a volume whose slices are stacked from feet to head."""
        slice_mm, row_mm, column_mm = self.spacing_mm
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = slice_mm, row_mm, column_mm, 1.0
        return Grid.for_study(Geometry((shape[0], shape[1], shape[2]), affine, self.spacing_mm), self.settings)
