"""One scan as it lies in the cache, of which parts are cut: a whole CT as float32 beside its map would be 1.3 GB.

Levels stay 16-bit and class numbers 8-bit until a part is cut; a part has the very bits of the same part of a scan that
was read whole. A record of the cache is sealed as one, so it is decrypted as one: 3 bytes a voxel.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNKNOWN: Final = -1  # a scan, or a voxel, that nobody has labelled

Place = tuple[int, ...]  # of the first voxel of a part, or how many voxels it has along each side


@dataclass(frozen=True, eq=False)
class WholeScan:
    """A scan and what experts drew on it.

    Shapes: levels (channels, *size), values of ``full_scale`` are 1; labels (*size) class of each voxel, ``UNKNOWN``
    where nobody knows (signed types), or None without a label map.
    """

    levels: NDArray[Any]
    labels: NDArray[Any] | None
    full_scale: float = 1.0

    @property
    def size(self) -> Place:
        """Return the voxels along each side."""
        return self.levels.shape[1:]

    @property
    def labelled(self) -> bool:
        """Return whether any voxel's class is known."""
        return self.labels is not None and bool(np.any(self.labels != UNKNOWN))

    def image_part(self, corner: Place, size: Place) -> Tensor:
        """Return a part of the image: (channels, *size) float32 in [0, 1]."""
        part = self.levels[(slice(None), *_slices(corner, size))]
        return torch.from_numpy(np.divide(part, np.float32(self.full_scale), dtype=np.float32))

    def label_part(self, corner: Place, size: Place) -> Tensor:
        """Return the classes of a part: (*size) int64, ``UNKNOWN`` where there is no label map."""
        if self.labels is None:
            return torch.full(size, UNKNOWN, dtype=torch.int64)
        return torch.from_numpy(self.labels[_slices(corner, size)].astype(np.int64))


def _slices(corner: Place, size: Place) -> tuple[slice, ...]:
    return tuple(slice(start, start + side) for start, side in zip(corner, size, strict=True))
