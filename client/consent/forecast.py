"""What a plan would do to the privacy ledger: spent now, and spent at most when the study is over."""

from dataclasses import dataclass

from client.installation.folder import SiteFolder
from client.ledger.budget import Affordable, Spending
from client.ledger.ledger import Ledger
from client.ledger.study_charges import planned_events
from common.plan.guarantee import accounted_delta
from common.plan.plan import StudyPlan


@dataclass(frozen=True)
class Forecast:
    """Epsilon of the worst-off patient over all studies here: ``before`` the study, ``after`` all its attempts.

    Guarantee: attempts are counted as planned, so what is spent in the end is at most ``after``. Where that is above
    ``ceiling``, the ledger stops the study before its end.
    """

    ceiling: float
    before: float
    after: float

    @property
    def fits(self) -> bool:
        """Whether the whole study fits under the ceiling."""
        return self.after <= self.ceiling


def forecast(folder: SiteFolder, plan: StudyPlan, *, ceiling: float) -> Forecast | None:
    """Account the ledger with and without the whole study; None for a plan that promises no privacy.

    What the study has spent already is part of its plan, so it is counted once. Cost: some seconds.
    Raises: LedgerInvalidError, LedgerBusyError.
    """
    delta = accounted_delta(plan)
    if delta is None:
        return None
    with Ledger.open(folder.ledger, ceiling=ceiling) as ledger:
        spent = ledger.spending()
    others = [study for study in spent if study.study != plan.digest()]
    planned = Spending(plan.digest(), delta, planned_events(plan))
    budget = Affordable(ceiling)
    return Forecast(ceiling, budget.epsilon(spent), budget.epsilon([*others, planned]))
