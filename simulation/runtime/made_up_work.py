"""A site's training, made up; its ledger, journal, outbox and protocol are the real ones.

For tests that need exact sums, and for benchmarks of everything but training. Nothing here protects anybody: the
vectors are what the caller says.

    keep_open(made_up_site(folder, empty_update))
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Self, cast

import numpy as np
from numpy.typing import NDArray

from client.consent.open_studies import OpenStudy
from client.installation.audit_log import last_mark
from client.installation.folder import SiteFolder
from client.learning.assignment import Training
from client.learning.release import StudyRelease
from client.ledger.ledger import Ledger
from client.ledger.study_charges import StudyCharges, planned_events
from client.ledger.terms import StudyTerms, promised
from client.round_work import StudyWork
from client.secagg.state import Contribution
from client.site import Site
from common.plan.sizes import largest_payload_bytes
from common.secagg.order import Order

Draw = Callable[[str, Order], NDArray[np.int32]]


NO_TRAINING = cast("Training", None)  # never asked: contribute is the only method that would
NO_RELEASE = cast("StudyRelease", None)  # nor this: there is no sum to bound or to noise
NOBODY: Final = bytes(32)  # in the place of a digest of who is in which stratum


class MadeUpWork(StudyWork):
    """Contributes ``draw(site, order)``: lattice integers (order.body_length,), and counts of no patient at all."""

    site: str
    draw: Draw

    @classmethod
    def drawing(cls, folder: SiteFolder, study: OpenStudy, draw: Draw) -> Self:
        """Return the work of a study at a site, made up by ``draw``; the site needs no cache, which is never looked at.

        Raises: LedgerInvalidError.
        """
        plan, shapes = study.checked.plan, study.checked.shapes
        ledger = Ledger.open(folder.ledger, ceiling=study.policy.epsilon_ceiling)
        terms = StudyTerms(promised(planned_events(plan)), NOBODY, last_mark(folder))
        charges = StudyCharges(plan, ledger, lambda: terms)
        payload_bytes = largest_payload_bytes(plan, longest_body=max(shape.sum_length for shape in shapes))
        work = cls(plan, charges, NO_TRAINING, NO_RELEASE, folder=folder, payload_bytes=payload_bytes)
        work.site, work.draw = study.checked.site_id, draw
        return work

    def contribute(self, order: Order, model: memoryview, until_unix_s: float) -> Contribution:
        """Reserve as real work does, then return what was made up."""
        del model
        self._reserve(order, until_unix_s)
        return Contribution(np.zeros(order.meta_words, np.uint64), self.draw(self.site, order))


def made_up_site(folder: Path, draw: Draw) -> Site:
    """Return a site like ``Site.open``, whose work is made up."""
    return Site(
        SiteFolder(folder),
        lambda site_folder, study: MadeUpWork.drawing(site_folder, study, draw),
        holds_replies=False,
    )


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
