"""What one attempt of a plan costs each stratum, and the ledger that is told before anything happens."""

from client.ledger.budget import Charge, Stratum
from client.ledger.ledger import Ledger, Reservation, charge
from common.plan.guarantee import evaluation_noise_multiplier, may_score
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

    def may_score(self, *, closing: bool) -> bool:
        """Tell whether held-out patients may be scored once more: the plan's number of scores is a ceiling.

        Counted are scores that the ledger charges, whichever rounds and attempts they were ordered for: what was
        given back (VOID) left no trace, what a crash cut off counts. Without a promise there is no ceiling.
        """
        if self._plan.privacy.delta is None:
            return True
        found = [each for each in self._ledger.spending() if each.study == self._study]
        scores = sum(event.steps for each in found for event in each.events.get(Stratum.VALIDATION, []))
        return may_score(self._plan, scores, closing=closing)

    def reserve(self, phase: Phase, attempt: int, *, scored: bool) -> Reservation | None:
        """Charge one attempt, durably, before a patient is read; None when the plan promises no privacy.

        Raises: BudgetExhaustedError, LedgerInvalidError, LedgerBusyError; nothing was read or charged then.
        """
        delta = self._plan.privacy.delta
        if delta is None:
            return None
        return self._ledger.reserve(self._study, attempt, self.charges(phase, scored=scored), delta=delta)

    def charges(self, phase: Phase, *, scored: bool) -> list[Charge]:
        """Return the cost of one attempt to each stratum that takes part in it.

        ``scored``: held-out patients are read. An unlabelled patient faces noise of sigma C over the own clip.
        """
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
        if scored:
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
