"""What one order asks of scans and network: score the received model, train on it, hand back noised integers.

This half of a round sees patients and neither keys, nor the ledger, nor the network of the federation. In a hospital it
runs in a process of its own (``client.trainer``), in a simulation beside the rest (``client.round_work``).
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.consent.open_studies import OpenStudy
from client.dicom.cache import Cache
from client.final_model.own_scores import note_own_score
from client.installation.folder import SiteFolder
from client.installation.public_images import read_public_images
from client.learning.cached_patients import CachedPatients
from client.learning.evaluation import count_patients, lattice_noise_stddev
from client.learning.noise import PrivacyRandomness
from client.learning.phase_settings import phase_settings
from client.learning.speed import Speed
from client.learning.teacher_file import keep_teacher, recall_teacher
from client.learning.training import LatticeUpdate, PhaseTraining, PublicImages
from client.round_work import Assignment, StudyWork
from client.secagg.state import Contribution
from common.networks.parameters import load
from common.plan.fitting import lattice_limit, lattice_step
from common.plan.guarantee import evaluation_noise_multiplier
from common.plan.network import travelling_layout
from common.plan.phases import Phase
from common.plan.plan import Site, StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.protocol import site_weight
from common.plan.schedule import count_layout
from common.plan.start import start_network
from common.processes.freed_memory import give_back
from common.trust.identity import read_secret_file


class StudyTraining:
    """Training and scoring of one study at one site (``client.round_work.Training``).

    Models stay loaded between rounds; ``teacher``: the file that keeps a phase's teacher over restarts, None for
    work that has none; ``own_scores``: the file of this site's own scores, for its staff. The first model of a phase
    that reaches this site is its first teacher.
    ``counts_multiplier``: noise of one evaluation (``evaluation_noise_multiplier``); 0 for a plan without privacy.
    ``randomness``: noise; only tests pass another than the operating system's.
    """

    def __init__(
        self,
        plan: StudyPlan,
        site: Site,
        patients: CachedPatients,
        *,
        counts_multiplier: float,
        public: PublicImages | None = None,
        speed: Speed | None = None,
        teacher: Path | None = None,
        own_scores: Path | None = None,
        randomness: PrivacyRandomness | None = None,
    ) -> None:
        self._plan, self._site, self._patients, self._counts_multiplier = plan, site, patients, counts_multiplier
        self._public, self._speed, self._teacher = public, speed or Speed(), teacher
        self._own_scores = own_scores
        self._randomness = randomness or PrivacyRandomness()
        self._counts = count_layout(plan)
        self._training: tuple[int, PhaseTraining] | None = None

    @classmethod
    def open(
        cls, folder: SiteFolder, plan: StudyPlan, *, site_id: str, counts_multiplier: float, speed: Speed | None = None
    ) -> "StudyTraining":
        """Open cache and public images of an approved study at this site.

        Raises: CacheInvalidError, KeyExposedError, and for public images what ``read_public_images`` raises.
        """
        cache = Cache.open(folder.cache, read_secret_file(folder.secret)).frozen(plan.digest())
        return cls(
            plan,
            next(site for site in plan.sites if site.name == site_id),
            CachedPatients(cache, plan),
            counts_multiplier=counts_multiplier,
            public=_public_images(folder, plan),
            speed=speed,
            teacher=folder.teacher(plan.digest()),
            own_scores=folder.own_scores(plan.digest()),
        )

    def contribute(self, assignment: Assignment, model: memoryview) -> Contribution:
        """Score the model where the assignment says so, and train one round on it.

        Shapes: model, what travels in this phase (``travelling_layout``) as little-endian float32 bytes; released once
        it was loaded.
        Raises: WeightsInvalidError for a model that does not fit; whatever training raises.
        """
        held_bytes = model.nbytes
        training = self._phase_training(assignment.phase, model)
        meta = self._noised(self._score(training.network, assignment), assignment)
        give_back(held_bytes)  # what scoring took
        update = training.train_round(assignment.round_number)
        if self._teacher:
            keep_teacher(self._teacher, training, assignment.phase)
        contribution = Contribution(meta.view(np.uint64), self._body(self._plan.phases[assignment.phase], update))
        give_back(held_bytes)
        return contribution

    def _score(self, network: nn.Module, assignment: Assignment) -> NDArray[np.int64]:
        """Return counts of the received model on the held-out patients, in 1 / 1024 patient; zeros if not scored."""
        scored = self._patients.held_out() if assignment.scored else []
        counts = count_patients(network, (self._patients.read(key) for key in scored), self._counts)
        if self._own_scores and assignment.scored:
            where = {"phase": assignment.phase, "round_number": assignment.round_number}
            note_own_score(self._own_scores, self._counts, counts, **where)
        return counts

    def _noised(self, counts: NDArray[np.int64], assignment: Assignment) -> NDArray[np.int64]:
        """Return what rides along: counts with noise where the schedule has a score, scored or not, else zeros."""
        if self._counts_multiplier == 0 or not assignment.evaluated:
            return counts
        distributed = self._plan.privacy.noise is NoisePlacement.DISTRIBUTED
        honest = self._plan.secure_aggregation.honest_survivors if distributed else 1
        stddev = lattice_noise_stddev(self._counts, noise_multiplier=self._counts_multiplier, honest_survivors=honest)
        return self._randomness.noised_counts(counts, noise_stddev=stddev)

    def _body(self, phase: Phase, update: LatticeUpdate) -> NDArray[np.generic]:
        """Return what is masked: lattice integers within the word's range, or the weighted difference of weights.

        The training has cut the sum so that it stays within the range with its noise.
        """
        if self._plan.privacy.noise is NoisePlacement.LOCAL:
            return (update.vector * site_weight(self._plan, phase, self._site)).astype(np.float32)
        limit, values = lattice_limit(self._plan), update.values
        return np.clip(values, -limit, limit, out=values).astype(np.int32, copy=False)

    def _phase_training(self, index: int, model: memoryview) -> PhaseTraining:
        """Return the training of a phase with the received model in it; the phase before is forgotten.

        The model is loaded before a phase begins, because its first model is also its first teacher.
        """
        plan, phase = self._plan, self._plan.phases[index]
        known = self._training[1] if self._training and self._training[0] == index else None
        network = known.network if known else start_network(plan).to(self._speed.device)
        load(network, travelling_layout(network, plan, index), np.frombuffer(model, dtype="<f4"))
        model.release()  # it is in the network now, and may be large
        if known:
            return known
        local = plan.privacy.noise is NoisePlacement.LOCAL
        training = PhaseTraining(
            network,
            self._patients,
            phase_settings(plan, phase, self._site),
            noise=None if plan.privacy.noise is NoisePlacement.NONE else _LatticeUnits(self._randomness),
            lattice_step=None if local else lattice_step(plan),
            lattice_limit=lattice_limit(plan),
            public=self._public,
            speed=self._speed.gradients,
            patients_at_once=self._speed.patients_at_once,
        )
        if self._teacher:
            recall_teacher(self._teacher, training, index)
        self._training = (index, training)
        return training


class _LatticeUnits:
    """The noise of ``client.learning.noise`` in units of the lattice, as the training asks for it."""

    def __init__(self, randomness: PrivacyRandomness) -> None:
        self._randomness = randomness

    def integers(self, length: int, stddev: float) -> NDArray[np.int64]:
        """Return round(stddev * z), z standard normal: (length,) int64."""
        return self._randomness.lattice_noise(length, noise_stddev=stddev, step=1.0)


def _public_images(folder: SiteFolder, plan: StudyPlan) -> PublicImages | None:
    found = read_public_images(folder, plan)
    if found is None:
        return None
    images, classes = found
    return PublicImages(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(classes))


def local_work(folder: SiteFolder, study: OpenStudy, speed: Speed) -> StudyWork:
    """Return the work of a study that is trained in this process.

    Raises: as ``StudyTraining.open`` and ``StudyWork.open``.
    """
    plan = study.checked.plan
    training = StudyTraining.open(
        folder,
        plan,
        site_id=study.checked.site_id,
        counts_multiplier=evaluation_noise_multiplier(plan),
        speed=speed,
    )
    return StudyWork.open(folder, study, training)
