"""What an order sets in motion at a site: reserve, score, train, hand over noised integers. One study at one site.

    contribute   1. RESERVED in the ledger, durable, before any patient is read
                 2. score the received model on held-out patients, where the schedule says so; counts are noised
                 3. train one round (``client.training``); the clipped sum is noised
                 4. both leave this function as integers, and this building only masked
    spend        SPENT, durable, before the masked vector leaves
    abandon      VOID, only when the session ended before that for a reason outside the site's data

Source: privacy.md sections 2 and 4, secure-aggregation.md section 6.0.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from client.cached_patients import CachedPatients
from client.dicom.cache import Cache
from client.evaluation import count_patients, lattice_noise_stddev, on_lattice
from client.ledger import Ledger, Reservation
from client.noise import PrivacyRandomness
from client.open_studies import OpenStudy
from client.phase_settings import phase_settings
from client.public_images import load_public_images
from client.secagg_state import Contribution
from client.site_folder import SiteFolder
from client.speed import Speed
from client.study_charges import StudyCharges
from client.teacher_file import keep_teacher, recall_teacher
from client.training import LatticeUpdate, PhaseTraining, PublicImages
from common.freed_memory import give_back
from common.identity import read_secret_file
from common.parameters import load
from common.plan.fitting import lattice_limit, lattice_step, travelling_layout
from common.plan.guarantee import evaluation_noise_multiplier
from common.plan.phases import Phase
from common.plan.plan import Site, StudyPlan
from common.plan.privacy import NoisePlacement
from common.plan.protocol import site_weight
from common.plan.schedule import count_layout, is_evaluated, version_before
from common.plan.sizes import largest_payload_bytes
from common.plan.start import start_network
from common.secagg.order import Order


class StudyWork:
    """Training, scoring and charging of one study (``client.secagg_steps.RoundWork``).

    Models stay loaded between rounds; ``teacher``: the file that keeps a phase's teacher over restarts, None for
    work that has none. The first model of a phase that reaches this site is its first teacher.
    ``randomness``: noise; only tests pass another than the operating system's.
    """

    def __init__(
        self,
        plan: StudyPlan,
        site: Site,
        patients: CachedPatients,
        charges: StudyCharges,
        *,
        public: PublicImages | None = None,
        speed: Speed | None = None,
        teacher: Path | None = None,
        randomness: PrivacyRandomness | None = None,
    ) -> None:
        self._plan, self._site, self._patients, self._charges = plan, site, patients, charges
        self._public, self._speed, self._teacher = public, speed or Speed(), teacher
        self._randomness = randomness or PrivacyRandomness()
        self._counts = count_layout(plan)
        self._counts_multiplier = evaluation_noise_multiplier(plan)
        self._training: tuple[int, PhaseTraining] | None = None
        self._reserved: Reservation | None = None
        self._has_begun = False

    @classmethod
    def open(cls, folder: SiteFolder, study: OpenStudy, speed: Speed) -> "StudyWork":
        """Open cache, ledger and network of an approved study at this site.

        Raises: CacheInvalidError, LedgerInvalidError, KeyExposedError, NetworkUnsuitableError, and for public images
        what ``load_public_images`` raises.
        """
        plan, name = study.checked.plan, study.checked.site_id
        cache = Cache.open(folder.cache, read_secret_file(folder.secret)).frozen(plan.digest())
        site = next(site for site in plan.sites if site.name == name)
        ledger = Ledger.open(folder.ledger, ceiling=study.policy.epsilon_ceiling)
        patients, charges = CachedPatients(cache, plan), StudyCharges(plan, ledger)
        public, teacher = load_public_images(folder, plan), folder.teacher(plan.digest())
        return cls(plan, site, patients, charges, public=public, speed=speed, teacher=teacher)

    @property
    def payload_bytes(self) -> int:
        """Bytes of the largest masked vector of this study: what the outbox lets through."""
        return largest_payload_bytes(self._plan)

    def contribute(self, order: Order, model: memoryview) -> Contribution:
        """Work on one order; see the module's words.

        Shapes: model, what travels in this phase (``travelling_layout``) as little-endian float32 bytes; released once
        it was loaded.
        Raises: BudgetExhaustedError before anything was read; WeightsInvalidError for a model that does not fit.
        """
        phase = self._plan.phases[order.phase]
        version = version_before(self._plan, order.phase, order.round_number)
        evaluated = is_evaluated(self._plan, version)
        self._reserved = self._charges.reserve(phase, order.attempt, evaluated=evaluated)
        self._has_begun = True
        training = self._phase_training(order.phase, model)
        meta = self._score(training.network) if evaluated else np.zeros(self._counts.length, np.int64)
        give_back(4 * order.body_length)  # what scoring took
        update = training.train_round(order.round_number)
        if self._teacher:
            keep_teacher(self._teacher, training, order.phase)
        contribution = Contribution(meta.view(np.uint64), self._body(order, phase, update))
        give_back(4 * order.body_length)
        return contribution

    def spend(self, order: Order) -> None:
        """Make SPENT durable; the masked vector leaves next."""
        del order
        if not self._has_begun:
            raise RuntimeError("nothing was begun for this order")
        if self._reserved is not None:
            self._charges.spend(self._reserved)
        self._reserved, self._has_begun = None, False

    def abandon(self, order: Order) -> None:
        """Give the reservation back: this process is alive, nothing left, and the reason was not the site's data."""
        del order
        if self._reserved is not None:
            self._charges.void(self._reserved)
        self._reserved, self._has_begun = None, False

    def ledger_head(self, order: Order) -> bytes:
        """Return the 32-byte head of the ledger's chain, which travels with KEYS as an anchor against old copies."""
        del order
        return self._charges.head

    def _score(self, network: nn.Module) -> NDArray[np.int64]:
        """Return noised counts of the received model on the held-out patients, in 1 / 1024 patient."""
        patients = (self._patients.read(key) for key in self._patients.held_out())
        counts = on_lattice(count_patients(network, patients, self._counts))
        if self._counts_multiplier == 0:
            return counts
        distributed = self._plan.privacy.noise is NoisePlacement.DISTRIBUTED
        honest = self._plan.secure_aggregation.honest_survivors if distributed else 1
        stddev = lattice_noise_stddev(self._counts, noise_multiplier=self._counts_multiplier, honest_survivors=honest)
        return self._randomness.noised_counts(counts, noise_stddev=stddev)

    def _body(self, order: Order, phase: Phase, update: LatticeUpdate) -> NDArray[np.generic]:
        """Return what is masked: lattice integers within the word's range, or the weighted difference of weights.

        The training has cut the sum so that it stays within the range with its noise.
        """
        if self._plan.privacy.noise is NoisePlacement.LOCAL:
            return (update.vector * site_weight(self._plan, phase, self._site)).astype(np.float32)
        limit, values = order.vector.lattice.limit, update.values
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
    """The noise of ``client.noise`` in units of the lattice, as the training asks for it."""

    def __init__(self, randomness: PrivacyRandomness) -> None:
        self._randomness = randomness

    def integers(self, length: int, stddev: float) -> NDArray[np.int64]:
        """Return round(stddev * z), z standard normal: (length,) int64."""
        return self._randomness.lattice_noise(length, noise_stddev=stddev, step=1.0)
