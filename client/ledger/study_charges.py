"""What one attempt of a plan costs each stratum, and the ledger that is told before anything happens."""

from collections.abc import Callable

from client.ledger.budget import Charge, Stratum
from client.ledger.ledger import Ledger, Reservation, charge
from client.ledger.terms import StudyTerms
from common.plan.guarantee import (
    accounted_delta,
    evaluation_noise_multiplier,
    evaluations,
    labelled_events,
    may_score,
    unlabelled_events,
)
from common.plan.phases import Phase
from common.plan.plan import StudyPlan
from common.privacy.accounting import SampledGaussian


def planned_events(plan: StudyPlan) -> dict[Stratum, list[SampledGaussian]]:
    """Return what the whole study costs each stratum when every planned attempt is made: the plan's promise.

    A plan without privacy promises nothing: empty. Raises: AccountingError for noise that cannot be accounted.
    """
    if plan.privacy.delta is None:
        return {}
    found = {Stratum.LABELLED: labelled_events(plan), Stratum.UNLABELLED: unlabelled_events(plan)}
    if plan.evaluation.held_out:
        found[Stratum.VALIDATION] = [SampledGaussian(1.0, evaluation_noise_multiplier(plan), evaluations(plan))]
    return {stratum: events for stratum, events in found.items() if events}


class StudyCharges:
    """The charges of one study at one site. A plan without privacy is not charged: its price has no number.

    ``terms``: asked before each charge on what terms the study goes on now; the ledger compares them with its first
    entry of the study. Raises what it finds wrong.
    """

    def __init__(self, plan: StudyPlan, ledger: Ledger, terms: Callable[[], StudyTerms] | None = None) -> None:
        self._plan, self._ledger, self._study, self._terms = plan, ledger, plan.digest(), terms
        self._delta = accounted_delta(plan)
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

    def reserve(self, phase: Phase, attempt: int, *, scored: bool, trained: bool = True) -> Reservation | None:
        """Charge one attempt, durably, before a patient is read; None when it costs nobody anything.

        That is so in a plan that promises no privacy, and where nobody is read: not ``scored`` and not ``trained``.

        Raises: BudgetExhaustedError (the site's ceiling, or the plan's own promise), StrataChangedError,
        LedgerInvalidError, LedgerBusyError; nothing was read or charged then.
        """
        delta = self._delta
        if delta is None:
            return None
        charges = self.charges(phase, scored=scored, trained=trained)
        if not charges:
            return None
        terms = None if self._terms is None else self._terms()
        return self._ledger.reserve(self._study, attempt, charges, delta=delta, terms=terms)

    def charges(self, phase: Phase, *, scored: bool, trained: bool = True) -> list[Charge]:
        """Return the cost of one attempt to each stratum that takes part in it.

        ``scored``: held-out patients are read; ``trained``: patients to learn from are. An unlabelled patient faces
        noise of sigma C over the own clip.
        """
        found = []
        if trained and phase.labelled_sampling_rate > 0:
            found.append(
                charge(
                    Stratum.LABELLED,
                    sampling_rate=phase.labelled_sampling_rate,
                    noise_multiplier=phase.noise_multiplier,
                    steps=phase.local_steps,
                )
            )
        if trained and phase.unlabelled_sampling_rate > 0:
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
