"""What an order asks of the training, and what comes back: clipped sums, and nothing that may leave yet."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Sums = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Assignment:
    """What an order asks of the training.

    ``evaluated``: noised counts ride along, as the plan's schedule says. ``scored``: held-out patients are read for
    them; without it the counts are noise alone, because the plan's number of scores is used up.
    ``trained``: patients are read to learn from; without it the sum is noise alone, and nobody was charged for it.
    ``until_unix_s``: when the training must be done.
    """

    phase: int
    round_number: int
    evaluated: bool
    scored: bool
    until_unix_s: float = math.inf
    trained: bool = True


class Training(Protocol):
    """Whoever trains: sees patients, knows neither keys nor the ledger, and adds no noise.

    Raises (both): TrainingStoppedError when the site's staff ended it. Whatever else is raised is a failed training.
    """

    def begin(self, assignment: Assignment, model: memoryview) -> tuple[Sums, Sums]:
        """Score ``model`` where it is asked for, and take the first step on it.

        Shapes: model, little-endian float32 bytes, may come back released; result: counts on the held-out patients
        (count_layout.length,) int64, zero if not ``scored``, and the clipped sum (num_parameters,) int32 or int64.
        """

    def go_on(self, difference: NDArray[np.float32]) -> Sums:
        """Take the next local step from the model plus ``difference`` (num_parameters,); returns its clipped sum."""
