"""A site's training, made up; its ledger, journal, outbox and protocol are the real ones.

For tests that need exact sums, and for benchmarks of everything but training. Nothing here protects anybody: the
vectors are what the caller says.

    keep_open(made_up_site(folder, empty_update))
"""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from client.cached_patients import CachedPatients
from client.ledger import Ledger
from client.open_studies import OpenStudy
from client.round_work import StudyWork
from client.secagg_state import Contribution
from client.site import Site
from client.site_folder import SiteFolder
from client.study_charges import StudyCharges
from common.plan.schedule import is_evaluated, version_before
from common.secagg.order import Order

Draw = Callable[[str, Order], NDArray[np.int32]]

NO_PATIENTS = cast("CachedPatients", None)  # never looked at: contribute is the only method that would


class MadeUpWork(StudyWork):
    """Contributes ``draw(site, order)``: lattice integers (order.body_length,), and counts of no patient at all."""

    def __init__(self, folder: SiteFolder, study: OpenStudy, draw: Draw) -> None:
        plan, name = study.checked.plan, study.checked.site_id
        site = next(site for site in plan.sites if site.name == name)
        ledger = Ledger.open(folder.ledger, ceiling=study.policy.epsilon_ceiling)
        super().__init__(plan, site, NO_PATIENTS, StudyCharges(plan, ledger))
        self._draw = draw

    def contribute(self, order: Order, model: memoryview) -> Contribution:
        """Reserve as real work does, then return what was made up."""
        del model
        phase = self._plan.phases[order.phase]
        evaluated = is_evaluated(self._plan, version_before(self._plan, order.phase, order.round_number))
        self._reserved = self._charges.reserve(phase, order.attempt, evaluated=evaluated)
        self._has_begun = True
        return Contribution(np.zeros(order.meta_words, np.uint64), self._draw(self._site.name, order))


def made_up_site(folder: Path, draw: Draw) -> Site:
    """Return a site like ``Site.open``, whose work is made up."""
    return Site(SiteFolder(folder), lambda site_folder, study: MadeUpWork(site_folder, study, draw))


def empty_update(site: str, order: Order) -> NDArray[np.int32]:
    """Return the attempt's number everywhere: next to no work, and never the same vector twice."""
    del site
    return np.full(order.body_length, order.attempt, np.int32)


def numbered_update(site: str, order: Order) -> NDArray[np.int32]:
    """Return small integers that depend on site and round, so that sums can be checked, and differ in each attempt.

    A site refuses to send one vector twice. The part that depends on the attempt has opposite signs at sites whose
    names end in an odd and in an even digit: over as many of both it cancels, and a repeated round gives the same sum.
    """
    steady = np.random.default_rng([sum(site.encode()), order.phase, order.round_number])
    passing = np.random.default_rng([order.attempt])
    sign = -1 if int(site[-1]) % 2 else 1
    values = steady.integers(-1000, 1001, order.body_length, dtype=np.int32)
    return values + sign * passing.integers(-1000, 1001, order.body_length, dtype=np.int32)
