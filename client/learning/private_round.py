"""The agent's half of a round: ask for clipped sums, let them through the mechanism, make of them what is masked.

    distributed   one sum, noised                                                               leaves: integers
    local         d <- d - eta (noised sum / B + mu d), E times from d = 0; each sum noised     leaves: w d
    none          one sum                                                                       leaves: integers

    d difference of weights from the received model   B expected batch, a public constant   mu proximal weight
    w public weight of this site

With local noise the steps are taken here: the process that trains learns where the model stands from noised sums only,
and can put nothing else into what leaves. Whatever the training raises, and a sum that cannot be, gives noise alone: a
failure may depend on a patient, so it must not be seen. The caller tells the staff.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from client.errors import TrainingStoppedError
from client.learning.assignment import Assignment, Sums, Training
from client.learning.mechanism import Mechanism
from client.learning.training_settings import Placement, TrainingSettings
from common.faults import fault_without_text

Answer = TypeVar("Answer")


class PrivateRound:
    """One round of a phase at one site.

    ``sums``, ``counts``: the mechanism of each. ``step``: worth of one integer of a sum. ``weight``: of this site with
    local noise. ``fault``: afterwards why noise stands in for a sum (kind and place, no text); "" if it does not.
    """

    def __init__(
        self, settings: TrainingSettings, *, sums: Mechanism, counts: Mechanism, step: float, weight: float = 1.0
    ) -> None:
        self._settings, self._sums, self._counts = settings, sums, counts
        self._step, self._weight = step, weight
        self._is_local = settings.placement is Placement.LOCAL
        self.fault = ""

    def run(
        self, training: Training, assignment: Assignment, model: memoryview
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Have the round trained; return counts (int64) and body (integers, or float32 with local noise) to be masked.

        Raises: TrainingStoppedError; without privacy also whatever the training raises, for noise alone would be
        nothing at all.
        """
        begun = self._asked(lambda: training.begin(assignment, model))
        counts, sums = begun if begun is not None else (None, None)
        if not assignment.scored:
            counts = np.zeros(self._counts.length, np.int64)  # whatever came: no held-out patient was charged
        if not assignment.trained:
            kind = np.int64 if self._is_local else np.int32
            sums = np.zeros(self._sums.length, kind)  # whatever came: nobody was charged for it
        if assignment.evaluated:
            scored = self._released(self._counts, counts, np.int64).astype(np.int64, copy=False)
        else:
            scored = np.zeros(self._counts.length, np.int64)
        noised = self._released(self._sums, sums, np.int64 if self._is_local else np.int32)
        if not self._is_local:
            return scored, noised
        difference = self._stepped(np.zeros(len(noised)), noised)
        for _ in range(1, self._settings.local_steps):
            sent = difference.astype(np.float32)
            noised = self._released(self._sums, self._asked(lambda sent=sent: training.go_on(sent)), np.int64)  # type: ignore[misc]
            difference = self._stepped(difference, noised)
        return scored, (difference * self._weight).astype(np.float32)

    def _asked(self, ask: Callable[[], Answer]) -> Answer | None:
        """Return the training's answer; None where it fails, or failed before in this round."""
        if self.fault:
            return None
        try:
            return ask()
        except TrainingStoppedError:
            raise  # by a person, whatever the scans are
        except Exception as error:
            if self._settings.placement is Placement.NONE:
                raise
            self.fault = fault_without_text(error)
            return None

    def _released(self, mechanism: Mechanism, sums: Sums | None, kind: type[np.signedinteger[Any]]) -> Sums:
        if sums is None or not mechanism.is_possible(sums):
            self.fault = self.fault or "a sum that these patients cannot have"
            sums = np.zeros(mechanism.length, kind)
        return mechanism.released(sums)

    def _stepped(self, difference: NDArray[np.float64], noised: Sums) -> NDArray[np.float64]:
        """Return d - eta (noised / B + mu d): the public divisor, the proximal term after clip and noise."""
        settings = self._settings
        mean = noised * (self._step / settings.expected_batch)
        moved: NDArray[np.float64] = difference - settings.local_learning_rate * (
            mean + settings.proximal_weight * difference
        )
        return moved
