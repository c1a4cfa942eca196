"""Random numbers for a set of images in which several images may show one patient."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulation.drawing.shapes import Field, column


class Cast:
    """Draws numbers that belong to a person (the same on each of their images) or to a single image.

    ``patients`` (N,) holds the patient's index of each image, from 0. All results have the shape (N, 1, ...) with as
    many ones as ``shape`` has axes, ready to be used in a drawing.
    """

    def __init__(self, rng: np.random.Generator, patients: NDArray[np.integer], shape: Sequence[int]) -> None:
        self.rng = rng
        self.patients = patients
        self.people = int(patients.max()) + 1 if len(patients) else 0
        self.shape = tuple(shape)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.patients)

    def person(self, low: float, high: float) -> Field:
        """Draw uniformly, one number for each person."""
        return column(self.rng.uniform(low, high, self.people)[self.patients], len(self.shape))

    def image(self, low: float, high: float) -> Field:
        """Draw uniformly, one number for each image."""
        return column(self.rng.uniform(low, high, self.count), len(self.shape))

    def side(self) -> Field:
        """Draw -1 or 1 for each image."""
        return column(self.rng.choice((-1.0, 1.0), self.count), len(self.shape))

    def pose(self, coordinates: Sequence[Field], *, shift: float, scale: float, turn: float) -> list[Field]:
        """Move, scale and turn (in the plane of the last two axes, radians) the coordinates of each image."""
        moved: list[Field] = [
            (axis - self.image(-shift, shift)) / self.image(1 - scale, 1 + scale) for axis in coordinates
        ]
        angle = self.image(-turn, turn)
        y, x = moved[-2:]
        moved[-2:] = [np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x]
        return moved
