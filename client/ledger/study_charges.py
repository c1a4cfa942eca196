"""What one attempt of a plan costs each stratum, and the ledger that is told before anything happens."""

from client.ledger.budget import Charge, Stratum
from client.ledger.ledger import Ledger, Reservation, charge
from common.plan.guarantee import evaluation_noise_multiplier
from common.plan.phases import Phase
from common.plan.plan import StudyPlan


class StudyCharges:
    """The charges of one study at one site. A plan without privacy is not charged: its price has no number."""

    def __init__(self, plan: StudyPlan, ledger: Ledger) -> None:
        self._plan, self._ledger, self._study = plan, ledger, plan.digest()
        self._evaluation_multiplier = evaluation_noise_multiplier(plan)

    @property
    def head(self) -> bytes:
        """Head of the study's chain in the ledger (32 bytes)."""
        return self._ledger.head(self._study)

    def reserve(self, phase: Phase, attempt: int, *, evaluated: bool) -> Reservation | None:
        """Charge one attempt, durably, before a patient is read; None when the plan promises no privacy.

        Raises: BudgetExhaustedError, LedgerInvalidError, LedgerBusyError; nothing was read or charged then.
        """
        delta = self._plan.privacy.delta
        if delta is None:
            return None
        return self._ledger.reserve(self._study, attempt, self.charges(phase, evaluated=evaluated), delta=delta)

    def charges(self, phase: Phase, *, evaluated: bool) -> list[Charge]:
        """Return the cost of one attempt to each stratum that takes part in it."""
        found = []
        if phase.labelled_sampling_rate > 0:
            found.append(
                charge(
                    Stratum.LABELLED,
                    sampling_rate=phase.labelled_sampling_rate,
                    noise_multiplier=phase.noise_multiplier,
                    steps=phase.local_steps,
                )
            )
        if phase.unlabelled_sampling_rate > 0:
            found.append(
                charge(
                    Stratum.UNLABELLED,
                    sampling_rate=phase.unlabelled_sampling_rate,
                    noise_multiplier=phase.noise_multiplier / phase.unlabelled_clip_ratio,
                    steps=phase.local_steps,
                )
            )
        if evaluated:
            found.append(
                charge(Stratum.VALIDATION, sampling_rate=1.0, noise_multiplier=self._evaluation_multiplier, steps=1)
            )
        return found

    def spend(self, reservation: Reservation) -> None:
        """Record, durably, that the result leaves. Raises: LedgerInvalidError."""
        self._ledger.spend(reservation)

    def void(self, reservation: Reservation) -> None:
        """Take the charge back; see ``Ledger.void`` for when that is allowed. Raises: LedgerInvalidError."""
        self._ledger.void(reservation)
