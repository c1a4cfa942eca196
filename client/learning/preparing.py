"""Patients made ready for the gradients: read, decrypted, moved to the device and viewed, one step ahead.

While a stack's gradients are made, a second thread prepares the next stack, and no more than that: two stacks are in
memory at most, which ``common.plan.machines`` counts. What a patient is made into depends on the patient's own draws,
never on who prepares it or when. An exception waits until the stack's turn, and is raised there. A lesson that asks a
teacher is read ahead, and made where the gradients are: two networks at work would take the memory of both.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

from client.learning.lessons import Lesson
from client.learning.patches import taken_of
from client.learning.patients import Patients, PatientScans
from client.learning.record_form import has_form
from client.learning.round_randomness import PatientRandomness
from client.learning.training_settings import TrainingSettings
from client.private_gradients.stacks import PatientRows

Item = TypeVar("Item")
Result = TypeVar("Result")
Begun = list[PatientRows | PatientScans | None]


class Prepared(Generic[Result]):
    """What another thread prepares; it can be taken once, so that nothing here keeps it in memory."""

    def __init__(self, future: "Future[Result]") -> None:
        self._future: list[Future[Result]] = [future]

    def take(self) -> Result:
        """Wait for it and hand it over; raise what the preparation raised."""
        return self._future.pop().result()


def one_ahead(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Prepared[Result]]]:
    """Yield each item with what ``work`` makes of it; the next one is being made meanwhile, and none after it."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="preparing") as thread:
        ahead: tuple[Item, Prepared[Result]] | None = None
        for item in items:
            if ahead is not None:
                following = item, Prepared(thread.submit(work, item))
                yield ahead
                ahead = following
            else:
                ahead = item, Prepared(thread.submit(work, item))
        if ahead is not None:
            yield ahead


@dataclass(frozen=True)
class Preparation:
    """How patients of one phase are made ready. ``views_ahead``: False where lessons ask a teacher."""

    patients: Patients
    settings: TrainingSettings
    input_shape: tuple[int, ...] | None
    device: torch.device
    views_ahead: bool

    def begun(
        self, patient_key: str, lesson: Lesson, randomness: PatientRandomness
    ) -> PatientRows | PatientScans | None:
        """Do what may be done ahead for one patient, alone: k scans at most, or patches of them, drawn beforehand.

        None for an empty or malformed record.
        """
        scans = self.patients.read(patient_key)
        order = torch.randperm(len(scans), generator=randomness.generator("choice of scans"))
        chosen, rule = order[: self.settings.most_scans], self.settings.patches
        taken = taken_of(scans, chosen, rule, randomness, classes=self.settings.classes)
        if taken is None or len(taken) == 0 or not has_form(taken, self.settings, self.input_shape):
            return None
        moved = self._moved(taken)
        return lesson.rows(moved, randomness) if self.views_ahead else moved

    def finished(
        self, begun: PatientRows | PatientScans | None, lesson: Lesson, randomness: PatientRandomness
    ) -> PatientRows | None:
        """Do the rest."""
        return lesson.rows(begun, randomness) if isinstance(begun, PatientScans) else begun

    def _moved(self, scans: PatientScans) -> PatientScans:
        if self.device.type != "cuda":
            return scans.to(self.device)
        images, labels = scans.images.pin_memory(), scans.labels.pin_memory()
        return replace(
            scans,
            images=images.to(self.device, non_blocking=True),
            labels=labels.to(self.device, non_blocking=True),
        )
