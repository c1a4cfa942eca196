"""What an order sets in motion at a site: reserve, train, spend. One study at one site.

    contribute   1. RESERVED in the ledger, durable, before any patient is read (before the first: the study's terms)
                 2. training: score the received model, where the schedule says so and scores are left, and train one
                    round; both are noised
                 3. both come back as integers, and leave this building only masked
    spend        SPENT, durable, before the masked vector leaves
    abandon      VOID, only when the session ended before that for a reason outside the site's data

The training itself (``client.trainer.study_training``) is handed in: an agent has it done by a process of its own,
which knows no key (``client.trainer``).
Source: privacy.md sections 2 and 4, secure-aggregation.md section 6.0.
"""

import logging
import math
from dataclasses import dataclass
from typing import Protocol, Self

from client.consent.open_studies import OpenStudy
from client.consent.strata import StudyStrata
from client.errors import TrainingStoppedError
from client.installation.folder import SiteFolder
from client.ledger.ledger import Ledger, Reservation
from client.ledger.study_charges import StudyCharges
from client.secagg.state import Contribution
from common.plan.guarantee import evaluations
from common.plan.plan import StudyPlan
from common.plan.schedule import is_closing, is_evaluated, version_before
from common.plan.sizes import largest_payload_bytes
from common.secagg.order import Order

_log = logging.getLogger("fedward.site")


@dataclass(frozen=True)
class Assignment:
    """What an order asks of the training.

    ``evaluated``: noised counts ride along, as the plan's schedule says. ``scored``: held-out patients are read for
    them; without it the counts are noise alone, because the plan's number of scores is used up.
    ``deadline_unix_s``: when nobody waits any more.
    """

    phase: int
    round_number: int
    evaluated: bool
    scored: bool
    deadline_unix_s: float = math.inf


class Training(Protocol):
    """Whoever trains: sees patients, knows neither keys nor the ledger."""

    def contribute(self, assignment: Assignment, model: memoryview) -> Contribution:
        """Train on ``model`` (little-endian float32 bytes; may come back released) and return the noised integers.

        Any exception refuses the order. Raises: TrainingStoppedError when the site's staff ended it.
        """


class StudyWork:
    """Charging of one study, and its training (``client.secagg.context.RoundWork``).

    ``payload_bytes``: bytes of the largest masked vector of this study, which the outbox lets through.
    """

    def __init__(self, plan: StudyPlan, charges: StudyCharges, training: Training, *, payload_bytes: int) -> None:
        self.payload_bytes = payload_bytes
        self._plan, self._charges, self._training = plan, charges, training
        self._reserved: Reservation | None = None
        self._has_begun = False

    @classmethod
    def open(cls, folder: SiteFolder, study: OpenStudy, training: Training) -> Self:
        """Return the work of an approved study at this site, with its ledger open.

        Raises: LedgerInvalidError; StrataChangedError, CacheInvalidError when the cache was made again since.
        """
        plan, shapes = study.checked.plan, study.checked.shapes
        ledger = Ledger.open(folder.ledger, ceiling=study.policy.epsilon_ceiling)
        payload_bytes = largest_payload_bytes(plan, longest_body=max(shape.num_parameters for shape in shapes))
        strata = StudyStrata(folder, plan)
        strata.require_same()
        return cls(plan, StudyCharges(plan, ledger, strata.terms), training, payload_bytes=payload_bytes)

    def contribute(self, order: Order, model: memoryview) -> Contribution:
        """Work on one order; see the module's words.

        Shapes: model, what travels in this phase as little-endian float32 bytes; may come back released.
        Raises: BudgetExhaustedError before anything was read; whatever the training raises.
        """
        assignment = self._reserve(order)
        try:
            return self._training.contribute(assignment, model)
        except TrainingStoppedError:
            self.abandon(order)  # by a person, whatever the scans are
            raise

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

    def _reserve(self, order: Order) -> Assignment:
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
        self._reserved = self._charges.reserve(phase, order.attempt, scored=scored)
        self._has_begun = True
        return Assignment(order.phase, order.round_number, evaluated, scored, order.deadline_unix_s)
