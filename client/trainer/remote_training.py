"""``Training`` that is done by the trainer: assignments go out, clipped sums come back; only their size is believed."""

import logging
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from client.errors import MemoryEndedError, TrainerFailedError, TrainingStoppedError
from client.installation.folder import SiteFolder
from client.learning.assignment import Assignment, Sums
from client.trainer.memory_limit import halve
from client.trainer.process import TrainerProcess
from common.errors import FedwardError
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.schedule import count_layout
from common.plan.shape import Shapes

WORD_BYTES: Final = 8

_log = logging.getLogger("fedward.agent")


class RemoteTraining:
    """The training of one study, in the process of ``trainer`` (``client.learning.assignment.Training``).

    Raises (on opening): what ``client.trainer.study_training.StudyTraining.open`` raises, and as
    ``TrainerProcess.ask``.
    """

    def __init__(
        self, folder: SiteFolder, trainer: TrainerProcess, plan: StudyPlan, shapes: Shapes, *, site_id: str
    ) -> None:
        self._folder, self._trainer, self._shapes = folder, trainer, shapes
        self._study_plan, self._plan, self._at_once = plan, plan.digest(), 1
        self._count_words = count_layout(plan).length
        self._type = np.dtype(np.int64 if plan.privacy.noise is NoisePlacement.LOCAL else np.int32)
        self._assignment = Assignment(0, 0, evaluated=False, scored=False)
        self._opening: dict[str, Any] = {"do": "open", "plan": plan.canonical(), "site": site_id}
        self._opened_in = 0  # which start of the trainer knows the study
        self._open()

    def begin(self, assignment: Assignment, model: memoryview) -> tuple[Sums, Sums]:
        """Have a round begun. ``model`` comes back released. Raises: as ``TrainerProcess.ask``."""
        self._open()
        self._assignment = assignment
        question = {
            "do": "begin",
            "plan": self._plan,
            "phase": assignment.phase,
            "round": assignment.round_number,
            "evaluated": assignment.evaluated,
            "scored": assignment.scored,
            "trained": assignment.trained,
        }
        found = self._asked(question, model, WORD_BYTES * self._count_words)
        counts = np.frombuffer(found, np.int64, self._count_words)
        return counts, np.frombuffer(found, self._type, offset=WORD_BYTES * self._count_words)

    def go_on(self, difference: NDArray[np.float32]) -> Sums:
        """Have the next local step taken, by the very process that began the round. Raises: as ``begin``."""
        if self._opened_in != self._trainer.starts:
            raise TrainerFailedError("the process that trains ended in the middle of a round")
        found = self._asked({"do": "go_on", "plan": self._plan}, difference.data.cast("B"), 0)
        return np.frombuffer(found, self._type)

    def _asked(self, question: dict[str, Any], body: memoryview, counts_bytes: int) -> bytearray:
        """Return an answer of exactly the size that the plan gives it."""
        length = self._shapes[self._assignment.phase].sum_length
        expected = counts_bytes + self._type.itemsize * length
        until_s = self._assignment.until_unix_s
        try:
            _, found = self._trainer.ask(question, body, max_body_bytes=expected, deadline_unix_s=until_s)
        except MemoryEndedError:
            self._take_fewer()
            raise
        if len(found) != expected:
            raise TrainerFailedError(f"the trainer gave {len(found)} bytes; {expected} were expected")
        return found

    def _open(self) -> None:
        """Tell the trainer of the study, unless it knows; one that was started since then does not."""
        self._trainer.warm_up()
        if self._opened_in == self._trainer.starts:
            return
        try:
            head, _ = self._trainer.ask(self._opening)
        except TrainingStoppedError:
            raise
        except FedwardError:
            # what was made since the trainer started (a cache, public images) is beyond its fence: another may see it
            self._trainer.close()
            head, _ = self._trainer.ask(self._opening)
        self._at_once = head["at_once"] if type(head.get("at_once")) is int else 1
        self._opened_in = self._trainer.starts

    def _take_fewer(self) -> None:
        """Let the next attempt take half as many patients side by side: another process opens the study anew."""
        self._trainer.close()
        try:
            half = halve(self._folder, self._study_plan, at_once=self._at_once)
        except (OSError, FedwardError):
            _log.error("memory ended in training, and that fewer patients go side by side now cannot be written")
            return
        _log.error("memory ended in training with %d patients side by side; from now on %d", self._at_once, half)
