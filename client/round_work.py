"""What an order sets in motion at a site: reserve, train, spend. One study at one site.

    contribute   1. RESERVED in the ledger, durable, before any patient is read (before the first: the study's terms)
                 2. training: score the received model, where the schedule says so and scores are left, and train one
                    round
                 3. both come back as clipped sums, are noised here, and leave this building only masked; a training
                    that fails is noise alone, charged like any other, and told to the hospital's staff
    spend        SPENT, durable, before the masked vector leaves
    abandon      VOID, only when the session ended before that for a reason outside the site's data

The training itself (``client.trainer.study_training``) is handed in: an agent has it done by a process of its own,
which knows no key (``client.trainer``). The noise is added on this side (``client.learning.private_round``).
Source: privacy.md sections 2 and 4, secure-aggregation.md section 6.0.
"""

import logging
from typing import Self

import numpy as np

from client.consent.open_studies import OpenStudy
from client.consent.strata import StudyStrata
from client.errors import TrainingStoppedError
from client.features.counting import require_features
from client.installation.folder import SiteFolder
from client.installation.training_faults import note_fault
from client.learning.assignment import Assignment, Training
from client.learning.release import StudyRelease
from client.ledger.ledger import Ledger, Reservation
from client.ledger.study_charges import StudyCharges
from client.secagg.state import Contribution
from common.networks.errors import WeightsInvalidError
from common.plan.guarantee import evaluations
from common.plan.plan import StudyPlan
from common.plan.schedule import is_closing, is_evaluated, takes_patients, version_before
from common.plan.sizes import largest_payload_bytes
from common.secagg.order import Order

BLOCK_BYTES = 1 << 22

_log = logging.getLogger("fedward.site")


class StudyWork:
    """Charging of one study, its training and its noise (``client.secagg.context.RoundWork``).

    ``payload_bytes``: bytes of the largest masked vector of this study, which the outbox lets through.
    ``folder``: where the staff find what became of a training.
    """

    def __init__(
        self,
        plan: StudyPlan,
        charges: StudyCharges,
        training: Training,
        release: StudyRelease,
        *,
        folder: SiteFolder,
        payload_bytes: int,
    ) -> None:
        self.payload_bytes = payload_bytes
        self._plan, self._charges, self._training = plan, charges, training
        self._release, self._folder = release, folder
        self._reserved: Reservation | None = None
        self._has_begun = False

    @classmethod
    def open(cls, folder: SiteFolder, study: OpenStudy, training: Training) -> Self:
        """Return the work of an approved study at this site, with its ledger open.

        Raises: LedgerInvalidError; StrataChangedError, CacheInvalidError when the cache was made again since;
        FeaturesMissingError while features of a scan are not computed; PlanWeakPrivacyError as ``StudyRelease.open``.
        """
        plan, shapes = study.checked.plan, study.checked.shapes
        require_features(folder, plan)
        release = StudyRelease.open(folder, plan, shapes, site_id=study.checked.site_id)
        ledger = Ledger.open(folder.ledger, ceiling=study.policy.epsilon_ceiling)
        payload_bytes = largest_payload_bytes(plan, longest_body=max(shape.sum_length for shape in shapes))
        strata = StudyStrata(folder, plan)
        strata.require_same()
        charges = StudyCharges(plan, ledger, strata.terms)
        return cls(plan, charges, training, release, folder=folder, payload_bytes=payload_bytes)

    def contribute(self, order: Order, model: memoryview, until_unix_s: float) -> Contribution:
        """Work on one order until ``until_unix_s`` at most; see the module's words.

        Shapes: model, what travels in this phase as little-endian float32 bytes; may come back released.
        Raises: WeightsInvalidError (a model that is no model) and BudgetExhaustedError before anything was read;
        TrainingStoppedError; without privacy whatever the training raises.
        """
        _require_finite(model)
        assignment = self._reserve(order, until_unix_s)
        work = self._release.round_of(order.phase)
        try:
            counts, body = work.run(self._training, assignment, model)
        except TrainingStoppedError:
            self.abandon(order)  # by a person, whatever the scans are
            raise
        if work.fault:
            note_fault(self._folder, plan=self._plan.digest(), round_number=order.round_number, fault=work.fault)
        return Contribution(counts.view(np.uint64), body)

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

    def _reserve(self, order: Order, until_unix_s: float) -> Assignment:
        """Charge an order. Scores beyond the plan's number are neither charged nor made: noise goes in their place."""
        plan, phase = self._plan, self._plan.phases[order.phase]
        evaluated = is_evaluated(plan, version_before(plan, order.phase, order.round_number))
        scored = evaluated and self._charges.may_score(closing=is_closing(plan, order.phase, order.round_number))
        if evaluated and not scored:
            _log.warning(
                "attempt %d: the plan's %d scores are used up; no held-out patient is read, noise goes in their place",
                order.attempt,
                evaluations(plan),
            )
        trained = takes_patients(plan, order.phase, order.round_number)
        self._reserved = self._charges.reserve(phase, order.attempt, scored=scored, trained=trained)
        self._has_begun = True
        return Assignment(order.phase, order.round_number, evaluated, scored, until_unix_s, trained)


def _require_finite(model: memoryview) -> None:
    """Refuse a model with a number that is none, before anything is reserved: no patient has to do with it."""
    for start in range(0, len(model), BLOCK_BYTES):
        if not bool(np.isfinite(np.frombuffer(model[start : start + BLOCK_BYTES], "<f4")).all()):
            raise WeightsInvalidError("the received model has a value that is not finite; nothing was trained on it")
