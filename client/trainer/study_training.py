"""What one order asks of scans and network: score the received model, train on it, hand back clipped sums.

This half of a round sees patients and neither keys, nor the ledger, nor the network of the federation; nor has it the
noise, which the agent adds (``client.learning.private_round``). In a hospital it runs in a process of its own
(``client.trainer``), in a simulation beside the rest (``client.trainer.local_work``).
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.final_model.own_scores import note_own_score
from client.installation.folder import SiteFolder
from client.installation.public_images import read_public_images
from client.learning.assignment import Assignment, Sums
from client.learning.cached_patients import CachedPatients
from client.learning.evaluation import count_patients
from client.learning.speed import Speed
from client.learning.teacher_file import keep_teacher, recall_teacher
from client.learning.training import PhaseTraining, PublicImages
from client.private_gradients.clipping import LatticeSum
from client.private_gradients.verdict import Verdicts
from client.private_gradients.verdict_folder import VerdictFolder
from client.trainer.phases import phase_training
from common.networks.parameters import load
from common.plan.network import travelling_layout
from common.plan.plan import Site, StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.schedule import count_layout
from common.plan.start import start_network
from common.processes.freed_memory import give_back

WORD: Final = 2**31 - 1  # what leaves this process in 32 bits; the agent's own cut is narrower


class StudyTraining:
    """Training and scoring of one study at one site (``client.learning.assignment.Training``).

    Models stay loaded between rounds; ``teacher``: the file that keeps a phase's teacher over restarts, None for
    work that has none; ``own_scores``: the file of this site's own scores, for its staff; ``verdicts``: engines that
    were chosen before (``client.trainer.measuring``). The first model of a phase that reaches this site is its first
    teacher.
    """

    def __init__(
        self,
        plan: StudyPlan,
        site: Site,
        patients: CachedPatients,
        *,
        public: PublicImages | None = None,
        speed: Speed | None = None,
        teacher: Path | None = None,
        own_scores: Path | None = None,
        verdicts: Verdicts | None = None,
    ) -> None:
        self._plan, self._site, self._patients = plan, site, patients
        self._public, self._speed, self._teacher = public, speed or Speed(), teacher
        self._own_scores, self._verdicts = own_scores, verdicts
        self._counts = count_layout(plan)
        self._training: tuple[int, PhaseTraining] | None = None

    @classmethod
    def open(
        cls,
        folder: SiteFolder,
        plan: StudyPlan,
        *,
        site_id: str,
        speed: Speed | None = None,
        verdicts: Verdicts | None = None,
    ) -> "StudyTraining":
        """Open cache and public images of an approved study at this site. ``verdicts``: None for the folder's own.

        Raises: CacheInvalidError, KeyExposedError, and for public images what ``read_public_images`` raises.
        """
        return cls(
            plan,
            next(site for site in plan.sites if site.name == site_id),
            CachedPatients.of_site(folder, plan),
            public=_public_images(folder, plan),
            speed=speed,
            teacher=folder.teacher(plan.digest()),
            own_scores=folder.own_scores(plan.digest()),
            verdicts=verdicts or VerdictFolder(folder.engines),
        )

    def begin(self, assignment: Assignment, model: memoryview) -> tuple[Sums, Sums]:
        """Score the model where the assignment says so, and take one private step on it.

        Shapes: model, what travels in this phase (``travelling_layout``) as little-endian float32 bytes; released once
        it was loaded. Result: counts int64, and the clipped sum, int32 (int64 with local noise).
        Raises: WeightsInvalidError for a model that does not fit; whatever training raises.
        """
        held_bytes = model.nbytes
        training = self._phase_training(assignment.phase, model)
        counts = self._score(training.network, assignment)
        give_back(held_bytes)  # what scoring took
        if not assignment.trained:
            return counts, self._handed_over(training.empty_sum())
        sums = self._handed_over(training.begin_round(assignment.round_number))
        if self._teacher:
            keep_teacher(self._teacher, training, assignment.phase)
        give_back(held_bytes)
        return counts, sums

    def go_on(self, difference: NDArray[np.float32]) -> Sums:
        """Take the next local step of the round that was begun. Raises: RuntimeError before any; as training does."""
        if self._training is None:
            raise RuntimeError("no round was begun")
        return self._handed_over(self._training[1].go_on(torch.from_numpy(difference)))

    def _score(self, network: nn.Module, assignment: Assignment) -> NDArray[np.int64]:
        """Return counts of the received model on the held-out patients, in 1 / 1024 patient; zeros if not scored."""
        scored = self._patients.held_out() if assignment.scored else []
        at_once, window = self._plan.image.maximum_scans_per_patient, self._plan.image.patch_px
        held_out = map(self._patients.read, scored)
        counts = count_patients(network, held_out, self._counts, scans_at_once=at_once, window=window)
        if self._own_scores and assignment.scored:
            where = {"phase": assignment.phase, "round_number": assignment.round_number}
            note_own_score(self._own_scores, self._counts, counts, **where)
        return counts

    def _handed_over(self, total: LatticeSum) -> Sums:
        """Return the integers of a sum, in as many bits as the agent expects."""
        values: Sums = total.values.cpu().numpy()
        if self._plan.privacy.noise is NoisePlacement.LOCAL:
            return values.astype(np.int64, copy=False)
        return np.clip(values, -WORD, WORD, out=values).astype(np.int32, copy=False)

    def _phase_training(self, index: int, model: memoryview) -> PhaseTraining:
        """Return the training of a phase with the received model in it; the phase before is forgotten.

        The model is loaded before a phase begins, because its first model is also its first teacher.
        """
        plan = self._plan
        known = self._training[1] if self._training and self._training[0] == index else None
        network = known.network if known else start_network(plan).to(self._speed.device)
        load(network, travelling_layout(network, plan, index), np.frombuffer(model, dtype="<f4"))
        model.release()  # it is in the network now, and may be large
        if known:
            return known
        training = phase_training(
            plan,
            index,
            self._site,
            network,
            self._patients,
            speed=self._speed,
            public=self._public,
            verdicts=self._verdicts,
        )
        if self._teacher:
            recall_teacher(self._teacher, training, index)
        self._training = (index, training)
        return training


def _public_images(folder: SiteFolder, plan: StudyPlan) -> PublicImages | None:
    found = read_public_images(folder, plan)
    if found is None:
        return None
    images, classes = found
    pictures = torch.from_numpy(images)
    pictures = pictures.unsqueeze(1) if plan.image.channels == 1 else pictures.movedim(-1, 1).contiguous()
    return PublicImages(pictures, torch.from_numpy(classes))
