"""``Training`` that is done by the trainer: assignments go out, noised integers come back."""

from typing import Any, Final

import numpy as np

from client.errors import TrainerFailedError, TrainingStoppedError
from client.round_work import Assignment
from client.secagg.state import Contribution
from client.trainer.process import TrainerProcess
from common.errors import FedwardError
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.schedule import count_layout
from common.plan.shape import Shapes

WORD_BYTES: Final = 8
VALUE_BYTES: Final = 4


class RemoteTraining:
    """The training of one study, in the process of ``trainer`` (``client.round_work.Training``).

    Raises (on opening): what ``client.trainer.study_training.StudyTraining.open`` raises, and as
    ``TrainerProcess.ask``.
    """

    def __init__(
        self, trainer: TrainerProcess, plan: StudyPlan, shapes: Shapes, *, site_id: str, counts_multiplier: float
    ) -> None:
        self._trainer, self._shapes = trainer, shapes
        self._plan = plan.digest()
        self._meta_words = count_layout(plan).length
        self._type = np.float32 if plan.privacy.noise is NoisePlacement.LOCAL else np.int32
        self._opening: dict[str, Any] = {
            "do": "open",
            "plan": plan.canonical(),
            "site": site_id,
            "counts_multiplier": counts_multiplier,
        }
        self._opened_in = 0  # which start of the trainer knows the study
        self._open()

    def contribute(self, assignment: Assignment, model: memoryview) -> Contribution:
        """Have one round trained. ``model`` comes back released. Raises: as ``TrainerProcess.ask``."""
        self._open()
        length = self._shapes[assignment.phase].num_parameters
        expected = WORD_BYTES * self._meta_words + VALUE_BYTES * length
        question = {
            "do": "contribute",
            "plan": self._plan,
            "phase": assignment.phase,
            "round": assignment.round_number,
            "evaluated": assignment.evaluated,
            "scored": assignment.scored,
        }
        _, found = self._trainer.ask(
            question, model, max_body_bytes=expected, deadline_unix_s=assignment.deadline_unix_s
        )
        if len(found) != expected:
            raise TrainerFailedError(f"the trainer gave {len(found)} bytes; {expected} were expected")
        meta = np.frombuffer(found, np.uint64, self._meta_words)
        return Contribution(meta, np.frombuffer(found, self._type, length, WORD_BYTES * self._meta_words))

    def _open(self) -> None:
        """Tell the trainer of the study, unless it knows; one that was started since then does not."""
        self._trainer.warm_up()
        if self._opened_in == self._trainer.starts:
            return
        try:
            self._trainer.ask(self._opening)
        except TrainingStoppedError:
            raise
        except FedwardError:
            # what was made since the trainer started (a cache, public images) is beyond its fence: another may see it
            self._trainer.close()
            self._trainer.ask(self._opening)
        self._opened_in = self._trainer.starts
